//! The links that a selection has put into its folder, in a list that lies there, so that the next selection removes those that it does not put
//! there itself, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::fs;

/// Bytes of the longest list that is read.
const LONGEST: u64 = 1 << 30;

/// Links by their places below the folder, each with the file that it leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Links {
    /// The list in a file. What is no such list names no links: then nothing is removed.
    pub fn read(list: &Path) -> Self {
        fs::read_at_most(list, LONGEST).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Those that lead from places below a folder to files, given as (file, place). What is in its place already leads where it led `before`.
    /// Names that are no text are not remembered, and so stay.
    pub fn of(folder: &Path, ways: &[(PathBuf, PathBuf)], before: &Self) -> fs::Result<Self> {
        let mut links = BTreeMap::new();
        for (from, to) in ways {
            let Ok(below) = to.strip_prefix(folder) else { continue };
            let mut from = fs::absolute(from)?;
            if fs::absolute(fs::parent(to))
                .is_ok_and(|parent| Some(from.as_path()) == to.file_name().map(|name| parent.join(name)).as_deref())
            {
                let Some(known) = before.links.get(below) else { continue };
                from.clone_from(known);
            }
            if below.to_str().is_some() && from.to_str().is_some() {
                links.insert(below.to_owned(), from);
            }
        }
        Ok(Self { links })
    }

    /// These, and others; of a place that is in both that of the others.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        let mut links = self.links.clone();
        links.extend(others.links.clone());
        Self { links }
    }

    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Removes the links that are still what was put there, but for places that are wanted; returns how many. A file that has taken the place
    /// of one stays, and so does the last name of a file.
    pub fn remove_all_but(&self, folder: &Path, wanted: &BTreeSet<PathBuf>) -> fs::Result<usize> {
        let mut removed = 0;
        for (below, from) in &self.links {
            let place = folder.join(below);
            let inside = below.components().all(|part| matches!(part, Component::Normal(_)));
            if !inside || wanted.contains(&place) || !is_ours(folder, &place, from)? {
                continue;
            }
            fs::remove(&place)?;
            removed += 1;
        }
        Ok(removed)
    }
}

/// True of a link that leads where it led when it was made, in a folder that is no link itself.
fn is_ours(folder: &Path, place: &Path, from: &Path) -> fs::Result<bool> {
    if !fs::exists(place) && !fs::is_link(place) || !fs::absolute(fs::parent(place))?.starts_with(fs::absolute(folder)?) {
        return Ok(false);
    }
    Ok(match fs::link_target(place) {
        Some(target) => target == from,
        // Another name of the file, which keeps the first.
        None => fs::is_same(place, from) && place != from,
    })
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::cli::similar::args::Materialize;
    use crate::cli::similar::materialize::put;

    fn touch(path: &Path) {
        fs::create_folders(fs::parent(path)).unwrap();
        fs::write_atomic(path, b"x").unwrap();
    }

    #[test]
    fn links_go_that_nobody_wants_any_more_and_nothing_else_does() {
        for how in [Materialize::Symlink, Materialize::Hardlink] {
            let dir = tempfile::tempdir().unwrap();
            let (pool, out) = (dir.path().join("pool"), dir.path().join("out/nn5"));
            let names = ["a/1.png", "a/2.png", "3.png", "4.png"];
            let ways: Vec<(PathBuf, PathBuf)> =
                names.iter().map(|name| (pool.join(name), out.join("images").join(name))).collect();
            for (from, to) in &ways {
                touch(from);
                put(how, from, to).unwrap();
            }
            let list = out.join("list");
            let links = Links::of(&out, &ways, &Links::default()).unwrap();
            let here: Vec<(PathBuf, PathBuf)> = ways.iter().map(|(_, to)| (to.clone(), to.clone())).collect();
            assert_eq!(Links::of(&out, &here, &links).unwrap(), links, "{how:?}: a selection of the selection");
            fs::write_atomic(&list, links.text().as_bytes()).unwrap();
            assert_eq!(Links::read(&list), links);
            // Somebody's own file in a place of ours, and one beside it.
            fs::remove(&ways[2].1).unwrap();
            touch(&ways[2].1);
            touch(&out.join("images/mine.png"));
            let wanted = BTreeSet::from([ways[0].1.clone()]);
            assert_eq!(Links::read(&list).remove_all_but(&out, &wanted).unwrap(), 2, "{how:?}");
            let there: Vec<bool> = ways.iter().map(|(_, to)| fs::exists(to)).collect();
            assert_eq!(there, [true, false, true, false]);
            assert!(fs::exists(&out.join("images/mine.png")) && ways.iter().all(|(from, _)| fs::exists(from)), "{how:?}");
            assert_eq!(links.remove_all_but(&out, &wanted).unwrap(), 0, "once more");
        }
    }

    #[test]
    fn a_list_leads_nowhere_else_and_what_is_no_list_names_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (out, file) = (dir.path().join("out"), dir.path().join("file"));
        fs::create_folders(&out).unwrap();
        touch(&file);
        fs::link(&file, &dir.path().join("link")).unwrap();
        fs::link(dir.path(), &out.join("way")).unwrap();
        let real = fs::absolute(&file).unwrap();
        let links = Links { links: ["../link", "way/link", "none"].map(|place| (PathBuf::from(place), real.clone())).into() };
        assert_eq!(links.remove_all_but(&out, &BTreeSet::new()).unwrap(), 0);
        assert!(fs::is_link(&dir.path().join("link")));
        for text in ["", "[]", "{\"links\": 3}"] {
            fs::write_atomic(&file, text.as_bytes()).unwrap();
            assert_eq!(Links::read(&file), Links::default(), "{text}");
        }
    }
}
