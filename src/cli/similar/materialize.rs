//! Pictures and annotations: where they lie, and where they are linked or copied.
//!
//! Two layouts are known: VOC's, `JPEGImages/<name>.jpg` or `.png` with `Annotations/<name>.xml`, and a plain folder, in which a
//! name is a path with or without its ending.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::args::Materialize;
use crate::base::fs::{self, At, UNFINISHED};
use crate::base::output::OutputError;
use crate::builtin::similar::stage::stem;
use crate::dataset::guarded_decode::ImageFormat;

/// The fork tries them in this order.
const ENDINGS: [&str; 9] = ["jpg", "png", "jpeg", "webp", "JPG", "tif", "tiff", "bmp", "gif"];
/// Where VOC's layout has its images.
pub const VOC_IMAGES: &str = "JPEGImages";
/// Bytes that tell what a file is.
const BEGINNING: u64 = 64;

/// A folder of pictures.
pub struct Pictures {
    root: PathBuf,
    /// Where it really is.
    real: PathBuf,
    /// VOC's layout.
    pub voc: bool,
}

/// A picture, and its annotation if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub image: Option<PathBuf>,
    pub annotation: Option<PathBuf>,
    /// Whether a link was not followed, because it leads out of the folder.
    pub outside: bool,
}

/// What a file is looked for as.
#[derive(Clone, Copy)]
enum Sort {
    Picture,
    Annotation,
}

impl Pictures {
    pub fn open(root: &Path) -> fs::Result<Self> {
        let voc = fs::metadata(&root.join(VOC_IMAGES))?.is_some_and(|found| found.is_dir());
        // Says in the words of the file system what is missing.
        fs::list(root)?;
        Ok(Self { root: root.to_owned(), real: fs::absolute(root)?, voc })
    }

    /// True if this folder lies in another one.
    pub fn is_below(&self, folder: &Path) -> bool {
        fs::absolute(folder).is_ok_and(|folder| self.real.starts_with(folder))
    }

    /// Where the picture of a name lies, and its annotation. A name that leads out of the folder has neither.
    pub fn find(&self, name: &str) -> fs::Result<Found> {
        let mut found = Found::default();
        if !inside(name) {
            return Ok(found);
        }
        let folder = if self.voc { self.root.join(VOC_IMAGES) } else { self.root.clone() };
        let mut places = vec![folder.join(name)];
        places.extend(ENDINGS.map(|ending| folder.join(format!("{}.{ending}", stem(name)))));
        for place in places {
            if found.image.is_none() {
                found.image = self.file(place, Sort::Picture, &mut found.outside)?;
            }
        }
        if self.voc {
            let place = self.root.join("Annotations").join(format!("{}.xml", stem(name)));
            found.annotation = self.file(place, Sort::Annotation, &mut found.outside)?;
        }
        Ok(found)
    }

    /// The place, if a file of the folder is there.
    fn file(&self, place: PathBuf, sort: Sort, outside: &mut bool) -> fs::Result<Option<PathBuf>> {
        if !fs::metadata(&place)?.is_some_and(|found| found.is_file()) {
            return Ok(None);
        }
        if self.may_be_read(&place, sort)? {
            return Ok(Some(place));
        }
        *outside = true;
        Ok(None)
    }

    /// True if a file lies in the folder. Linked folders that lead out of it are not followed; a file that is itself a link is,
    /// as in an earlier selection or a cache of downloads, if it is what it is looked for as.
    fn may_be_read(&self, place: &Path, sort: Sort) -> fs::Result<bool> {
        if fs::absolute(place)?.starts_with(&self.real) {
            return Ok(true);
        }
        if !fs::absolute(fs::parent(place))?.starts_with(&self.real) {
            return Ok(false);
        }
        let mut begin = Vec::new();
        fs::open(place)?.take(BEGINNING).read_to_end(&mut begin).at("read", place)?;
        let text = begin.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&begin).trim_ascii_start();
        Ok(match sort {
            Sort::Picture => ImageFormat::sniff(&begin).is_some(),
            Sort::Annotation => text.starts_with(b"<"),
        })
    }

    /// Refuses to put a file where another one of the folder lies.
    ///
    /// # Errors
    /// [`OutputError::Source`].
    pub fn spare(&self, from: &Path, to: &Path) -> Result<(), OutputError> {
        let taken = fs::exists(to) && !fs::is_link(to) && !fs::is_same(from, to);
        if taken && fs::absolute(to)?.starts_with(&self.real) {
            return Err(OutputError::Source { path: to.display().to_string() });
        }
        Ok(())
    }

    /// Where a picture and its annotation go below a folder.
    pub fn destination(&self, name: &str, found: &Found) -> Vec<(PathBuf, PathBuf)> {
        let mut ways = Vec::new();
        if let Some(image) = &found.image {
            let ending = image.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
            let folder = if self.voc { VOC_IMAGES } else { "images" };
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

/// Puts files where they belong; what is there already is replaced in one step, unless it is the same file.
pub fn put(how: Materialize, from: &Path, to: &Path) -> fs::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_folders(folder)?;
    }
    // An earlier selection may be the pool of this one. Of links only the copy makes another file.
    if fs::is_same(from, to) && !(fs::is_link(to) && matches!(how, Materialize::Copy | Materialize::Hardlink)) {
        return Ok(());
    }
    // Through all links: one of them may be the very link that is replaced.
    let from = fs::absolute(from)?;
    match how {
        Materialize::List => Ok(()),
        Materialize::Symlink => fs::link_symbolically(&from, to),
        Materialize::Hardlink => fs::link_hard(&from, to),
        Materialize::Copy => fs::copy(&from, to),
    }
}

/// Files below a folder that are not among those wanted: left from an earlier selection. What a killed run left unfinished goes.
pub fn strangers(folder: &Path, wanted: &std::collections::BTreeSet<PathBuf>) -> fs::Result<usize> {
    if !fs::exists(folder) {
        return Ok(0);
    }
    let mut count = 0;
    for path in fs::list(folder)? {
        // Links are not followed: a linked picture is no folder.
        if fs::is_real_folder(&path) {
            count += strangers(&path, wanted)?;
        } else if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes())) {
            fs::remove(&path)?;
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
        assert_eq!(
            a,
            Found {
                image: Some(voc.join("JPEGImages/a.jpg")),
                annotation: Some(voc.join("Annotations/a.xml")),
                outside: false
            }
        );
        assert_eq!(v.find("a.png").unwrap().image, Some(voc.join("JPEGImages/a.png")), "a name with its ending is that file");
        assert_eq!(v.find("b").unwrap(), Found { image: Some(voc.join("JPEGImages/b.png")), ..Found::default() });
        assert_eq!(p.find("x/c").unwrap().image, Some(plain.join("x/c.jpeg")));
        for name in ["../voc/JPEGImages/a.jpg", "/etc/passwd", "", "x", &"n".repeat(300), "a\0b"] {
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

    #[test]
    #[cfg(unix)]
    fn linked_folders_that_lead_out_are_not_followed_and_linked_files_only_if_they_are_pictures() {
        let dir = tempfile::tempdir().unwrap();
        let (pool, out) = (dir.path().join("pool"), dir.path().join("out"));
        touch(&pool.join("inside/a.png"));
        touch(&out.join("passwd"));
        fs::write_atomic(&out.join("b.png"), b"\x89PNG\r\n\x1a\nIHDR").unwrap();
        for (target, link) in
            [(out.clone(), "lnk"), (pool.join("inside"), "near"), (out.join("passwd"), "c.png"), (out.join("b.png"), "d.png")]
        {
            fs::link(&target, &pool.join(link)).unwrap();
        }
        let pictures = Pictures::open(&pool).unwrap();
        let found = |name: &str| pictures.find(name).map(|found| (found.image.is_some(), found.outside)).unwrap();
        for (name, wanted) in [
            ("lnk/passwd", (false, true)),
            ("lnk/b", (false, true)),
            ("near/a", (true, false)),
            ("c", (false, true)),
            ("d", (true, false)),
            ("e", (false, false)),
        ] {
            assert_eq!(found(name), wanted, "{name}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_selection_that_is_the_pool_of_the_next_keeps_every_file() {
        for first in [Materialize::Symlink, Materialize::Hardlink, Materialize::Copy] {
            for second in [Materialize::Symlink, Materialize::Hardlink, Materialize::Copy] {
                let dir = tempfile::tempdir().unwrap();
                let (from, to) = (dir.path().join("pool/a.png"), dir.path().join("nn5/a.png"));
                touch(&from);
                put(first, &from, &to).unwrap();
                put(second, &to, &to).unwrap();
                assert_eq!(
                    (fs::read(&from).unwrap(), fs::read(&to).unwrap()),
                    (b"x".to_vec(), b"x".to_vec()),
                    "{first:?}, {second:?}"
                );
                let independent = (first, second) == (Materialize::Symlink, Materialize::Copy);
                assert!(!independent || !fs::is_same(&from, &to), "a link became a copy");
            }
        }
    }

    #[test]
    fn a_picture_of_the_pool_is_not_replaced_by_another() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a.png", "images/a.png"].map(|name| dir.path().join(name));
        touch(&a);
        touch(&b);
        let pictures = Pictures::open(dir.path()).unwrap();
        assert!(matches!(pictures.spare(&a, &b), Err(OutputError::Source { .. })));
        pictures.spare(&a, &a).unwrap();
        pictures.spare(&a, &dir.path().join("images/new.png")).unwrap();
    }

    #[test]
    fn what_a_killed_run_left_unfinished_goes_and_is_no_stranger() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".kinset-abcdef", "old.png"] {
            touch(&dir.path().join(name));
        }
        assert_eq!(strangers(dir.path(), &std::collections::BTreeSet::new()).unwrap(), 1);
        assert_eq!(fs::list(dir.path()).unwrap(), [dir.path().join("old.png")]);
    }
}
