//! Pictures and annotations: where they lie, and where they are linked or copied.
//!
//! Two layouts are known: VOC's, `JPEGImages/<name>.jpg` or `.png` with `Annotations/<name>.xml`, and a plain folder, in which a
//! name is a path with or without its ending.

use std::path::{Component, Path, PathBuf};

use super::args::Materialize;
use crate::base::fs;
use crate::builtin::similar::stage::stem;

/// The fork tries them in this order.
const ENDINGS: [&str; 5] = ["jpg", "png", "jpeg", "webp", "JPG"];

/// A folder of pictures.
pub struct Pictures {
    root: PathBuf,
    /// VOC's layout.
    pub voc: bool,
}

/// A picture, and its annotation if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub image: Option<PathBuf>,
    pub annotation: Option<PathBuf>,
}

impl Pictures {
    pub fn open(root: &Path) -> fs::Result<Self> {
        let voc = fs::metadata(&root.join("JPEGImages"))?.is_some_and(|found| found.is_dir());
        // Says in the words of the file system what is missing.
        fs::list(root)?;
        Ok(Self { root: root.to_owned(), voc })
    }

    /// Where the picture of a name lies, and its annotation. A name that leads out of the folder has neither.
    pub fn find(&self, name: &str) -> fs::Result<Found> {
        if !inside(name) {
            return Ok(Found::default());
        }
        let file = |path: PathBuf| Ok::<_, fs::FileError>(fs::metadata(&path)?.filter(fs::Metadata::is_file).map(|_| path));
        let folder = if self.voc { self.root.join("JPEGImages") } else { self.root.clone() };
        let mut image = file(folder.join(name))?;
        for ending in ENDINGS {
            if image.is_none() {
                image = file(folder.join(format!("{}.{ending}", stem(name))))?;
            }
        }
        let annotation = if self.voc { file(self.root.join("Annotations").join(format!("{}.xml", stem(name))))? } else { None };
        Ok(Found { image, annotation })
    }

    /// Where a picture and its annotation go below a folder.
    pub fn destination(&self, name: &str, found: &Found) -> Vec<(PathBuf, PathBuf)> {
        let mut ways = Vec::new();
        if let Some(image) = &found.image {
            let ending = image.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
            let folder = if self.voc { "JPEGImages" } else { "images" };
            ways.push((image.clone(), Path::new(folder).join(format!("{}{ending}", stem(name)))));
        }
        if let Some(annotation) = &found.annotation {
            ways.push((annotation.clone(), Path::new("Annotations").join(format!("{}.xml", stem(name)))));
        }
        ways
    }
}

/// True if a name leads down and nowhere else.
fn inside(name: &str) -> bool {
    Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) && !name.is_empty()
}

/// Puts files where they belong; what is there already is replaced.
pub fn put(how: Materialize, from: &Path, to: &Path) -> fs::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_folders(folder)?;
    }
    let from = std::path::absolute(from).map_err(|error| fs::FileError::new("find", from, error))?;
    match how {
        Materialize::List => Ok(()),
        Materialize::Symlink => fs::link_symbolically(&from, to),
        Materialize::Hardlink => fs::link_hard(&from, to),
        Materialize::Copy => fs::copy(&from, to),
    }
}

/// Files below a folder that are not among those wanted: left from an earlier selection.
pub fn strangers(folder: &Path, wanted: &std::collections::BTreeSet<PathBuf>) -> fs::Result<usize> {
    if !fs::exists(folder) {
        return Ok(0);
    }
    let mut count = 0;
    for path in fs::list(folder)? {
        // Links are not followed: a linked picture is no folder.
        if fs::is_real_folder(&path) {
            count += strangers(&path, wanted)?;
        } else if !wanted.contains(&path) {
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_folders(path.parent().unwrap()).unwrap();
        fs::write_atomic(path, b"x").unwrap();
    }

    #[test]
    fn pictures_are_found_in_both_layouts_jpg_before_png_and_never_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (voc, plain) = (dir.path().join("voc"), dir.path().join("plain"));
        for name in ["JPEGImages/a.jpg", "JPEGImages/a.png", "JPEGImages/b.png", "Annotations/a.xml"] {
            touch(&voc.join(name));
        }
        for name in ["x/c.jpeg", "d.png"] {
            touch(&plain.join(name));
        }
        let (v, p) = (Pictures::open(&voc).unwrap(), Pictures::open(&plain).unwrap());
        assert!(v.voc && !p.voc);
        let a = v.find("a").unwrap();
        assert_eq!(a, Found { image: Some(voc.join("JPEGImages/a.jpg")), annotation: Some(voc.join("Annotations/a.xml")) });
        assert_eq!(v.find("a.png").unwrap().image, Some(voc.join("JPEGImages/a.png")), "a name with its ending is that file");
        assert_eq!(v.find("b").unwrap(), Found { image: Some(voc.join("JPEGImages/b.png")), annotation: None });
        assert_eq!(p.find("x/c").unwrap().image, Some(plain.join("x/c.jpeg")));
        for name in ["../voc/JPEGImages/a.jpg", "/etc/passwd", "", "x"] {
            assert_eq!(p.find(name).unwrap(), Found::default(), "{name}");
        }
        let to: Vec<PathBuf> = v.destination("a", &a).into_iter().map(|(_, to)| to).collect();
        assert_eq!(to, [PathBuf::from("JPEGImages/a.jpg"), PathBuf::from("Annotations/a.xml")]);
        assert_eq!(p.destination("x/c", &p.find("x/c").unwrap())[0].1, PathBuf::from("images/x/c.jpeg"));
        assert!(Pictures::open(&dir.path().join("none")).is_err());
    }

    #[test]
    fn every_way_puts_the_file_there_twice_over() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("a.jpg");
        touch(&from);
        for how in [Materialize::Symlink, Materialize::Hardlink, Materialize::Copy] {
            let to = dir.path().join(format!("{how:?}/deep/a.jpg"));
            for _ in 0..2 {
                put(how, &from, &to).unwrap();
                assert_eq!(fs::read(&to).unwrap(), b"x", "{how:?}");
            }
            let none = std::collections::BTreeSet::new();
            assert_eq!(strangers(to.parent().unwrap(), &none).unwrap(), 1);
            assert_eq!(strangers(to.parent().unwrap(), &[to.clone()].into()).unwrap(), 0);
        }
    }
}
