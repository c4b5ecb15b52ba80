//! The file of names: read with the line of every fault, changed without touching what else it says, written whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml_edit::{Array, Document, DocumentMut, Item as Node, Key, Table, TableLike, Value, value};

use super::error::NamesError;
use super::groups::{cluster_name, numbered, ruled};
use kinset_base::{fs, output};
use kinset_store::digest::Digest;

/// A file with a line for each of a million images is shorter.
const LARGEST: u64 = 1 << 28;

/// How a new file begins.
const HEAD: &str = "# Names of groups, written by `kinset label` and `kinset view`. It may be edited by hand: comments stay.\n";

/// Where a person puts a cluster or an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Group(String),
    /// Into no group at all; images alone.
    Rejected,
}

/// What is put somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Item {
    Cluster(usize),
    Image(String),
}

/// What a change has done, so that it can be undone: nothing stands for what the classifier says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub item: Item,
    pub before: Option<Place>,
    pub after: Option<Place>,
}

/// What a file of names says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The result whose clusters are named: the content digest of its assignments.
    pub of: Option<Digest>,
    /// The stage that it came from.
    pub stage: Option<String>,
    /// Names of clusters; a cluster without one is a group by itself.
    pub clusters: BTreeMap<usize, String>,
    /// Where single images belong, by their ids.
    pub images: BTreeMap<String, Place>,
}

impl Names {
    /// Reads a file; one that is not there says nothing.
    ///
    /// # Errors
    /// If it cannot be read or says something else than names.
    pub fn read(path: &Path) -> Result<Self, NamesError> {
        NamesFile::read(path).map(|file| file.names)
    }

    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.images.is_empty()
    }

    pub fn place(&self, item: &Item) -> Option<Place> {
        match item {
            Item::Cluster(cluster) => self.clusters.get(cluster).cloned().map(Place::Group),
            Item::Image(id) => self.images.get(id).cloned(),
        }
    }

    /// The highest number of a cluster that is spoken of; nothing if the names hold for any result. Images have the same ids
    /// everywhere, but one that was moved to `cluster 3` is meant to lie where that cluster is.
    pub fn highest(&self) -> Option<usize> {
        let groups = self.images.values().filter_map(|place| match place {
            Place::Group(name) => numbered(name),
            Place::Rejected => None,
        });
        groups.chain(self.clusters.keys().copied()).max()
    }

    /// Refuses names of the clusters of another result. What is said of single images holds for any.
    ///
    /// # Errors
    /// [`NamesError::Stale`], [`NamesError::NoCluster`].
    pub fn check(&self, path: &Path, stage: &str, result: Digest, clusters: usize) -> Result<(), NamesError> {
        let shown = || path.display().to_string();
        let Some(last) = self.highest() else { return Ok(()) };
        if self.of != Some(result) {
            return Err(NamesError::Stale { path: shown(), stage: stage.to_owned() });
        }
        if last >= clusters {
            return Err(NamesError::NoCluster { path: shown(), cluster: last, there: super::error::Clusters(clusters) });
        }
        Ok(())
    }
}

/// A file of names that is changed: what it says, and its text with comments and order.
#[derive(Debug)]
pub struct NamesFile {
    path: PathBuf,
    names: Names,
    document: DocumentMut,
    revision: Option<Digest>,
}

impl NamesFile {
    /// Reads a file; one that is not there says nothing.
    ///
    /// # Errors
    /// As [`Names::read`].
    pub fn read(path: &Path) -> Result<Self, NamesError> {
        let path = path.to_owned();
        if fs::metadata(&path)?.is_none() {
            return Ok(Self { path, names: Names::default(), document: DocumentMut::new(), revision: None });
        }
        let bytes = fs::read_at_most(&path, LARGEST)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| NamesError::Syntax {
            path: path.display().to_string(),
            line: lines(&bytes[..error.valid_up_to()]),
            message: "it is not UTF-8".into(),
        })?;
        let text = Text { path: &path, text };
        let parsed = Document::parse(text.text).map_err(|error| NamesError::Syntax {
            path: path.display().to_string(),
            line: text.line(error.span()),
            message: error.message().to_owned(),
        })?;
        let names = text.names(parsed.as_table())?;
        let document = parsed.into_mut();
        Ok(Self { path, names, document, revision: Some(Digest::of(&bytes)) })
    }

    /// Reads a file, changes it and writes it, while nobody else does: between two programs the second waits for the first. It
    /// is written in one step, and not at all if nothing changes.
    ///
    /// # Errors
    /// Those of `change`; what cannot be read or written.
    pub fn edit<T, E: From<NamesError>>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<(T, Self), E> {
        let _held = fs::lock_folder(fs::parent(path)).map_err(NamesError::from)?;
        let mut file = Self::read(path)?;
        let before = file.names.clone();
        let answer = change(&mut file)?;
        if file.names != before {
            file.write_down(&before);
            let mut text = file.document.to_string();
            if file.revision.is_none() {
                text.insert_str(0, HEAD);
            }
            output::write(path, text.as_bytes()).map_err(NamesError::from)?;
            file.revision = Some(Digest::of(text.as_bytes()));
        }
        Ok((answer, file))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Changes when the file does; empty while there is none.
    pub fn revision(&self) -> String {
        self.revision.map(|digest| digest.short()).unwrap_or_default()
    }

    /// Says which result the clusters are those of.
    pub fn set_result(&mut self, stage: &str, result: Digest) {
        self.names.of = Some(result);
        self.names.stage = Some(stage.to_owned());
    }

    /// Puts something somewhere, or back to where the classifier has it. The name of a cluster by itself, `cluster 3`, is what that
    /// cluster is called anyway.
    ///
    /// # Errors
    /// [`NamesError::Name`].
    pub fn set(&mut self, item: &Item, place: Option<Place>) -> Result<Change, NamesError> {
        let before = self.names.place(item);
        let place = match (item, place) {
            (Item::Cluster(cluster), Some(Place::Group(name))) if name == cluster_name(*cluster) => None,
            (Item::Cluster(_), Some(Place::Rejected)) => {
                return Err(NamesError::Name { name: "rejected".into(), why: "images are rejected, not clusters" });
            }
            (_, place) => place,
        };
        if let Some(Place::Group(name)) = &place {
            ruled(name)?;
        }
        let change = Change { item: item.clone(), before, after: place };
        match (item, &change.after) {
            (Item::Cluster(cluster), Some(Place::Group(name))) => drop(self.names.clusters.insert(*cluster, name.clone())),
            (Item::Cluster(cluster), _) => drop(self.names.clusters.remove(cluster)),
            (Item::Image(id), Some(place)) => drop(self.names.images.insert(id.clone(), place.clone())),
            (Item::Image(id), None) => drop(self.names.images.remove(id)),
        }
        Ok(change)
    }

    /// Gives a group another name: its clusters, and the images that were moved there. The name of another group merges the two.
    ///
    /// # Errors
    /// [`NamesError::Name`].
    pub fn rename(&mut self, old: &str, new: &str, clusters: usize) -> Result<Vec<Change>, NamesError> {
        ruled(new)?;
        let of_clusters = (0..clusters).filter(|&cluster| self.names.of_cluster(cluster) == old).map(Item::Cluster);
        let is_there = |place: &Place| matches!(place, Place::Group(name) if name == old);
        let moved = self.names.images.iter().filter(|(_, place)| is_there(place)).map(|(id, _)| Item::Image(id.clone()));
        let items: Vec<Item> = of_clusters.chain(moved).collect();
        items.iter().map(|item| self.set(item, Some(Place::Group(new.to_owned())))).collect()
    }

    /// Drops what depends on the numbers of clusters: their names, and images that were moved to a cluster without one.
    ///
    /// # Errors
    /// None but those of [`NamesFile::set`].
    pub fn forget(&mut self) -> Result<Vec<Change>, NamesError> {
        let by_number = |place: &Place| matches!(place, Place::Group(name) if numbered(name).is_some());
        let moved = self.names.images.iter().filter(|(_, place)| by_number(place)).map(|(id, _)| Item::Image(id.clone()));
        let items: Vec<Item> = self.names.clusters.keys().copied().map(Item::Cluster).chain(moved).collect();
        items.iter().map(|item| self.set(item, None)).collect()
    }

    /// Brings the text to what the names are, from what they were.
    fn write_down(&mut self, before: &Names) {
        let Self { names, document, .. } = self;
        if let Some(of) = names.of.filter(|_| names.of != before.of) {
            put(document.as_table_mut(), "of", &of.hex());
        }
        if let Some(stage) = names.stage.as_ref().filter(|_| names.stage != before.stage) {
            put(document.as_table_mut(), "stage", stage);
        }
        write_table(document, "clusters", &by_text(before.clusters.iter()), &by_text(names.clusters.iter()));
        write_table(document, "images", &moved(before), &moved(names));
        write_rejected(document, &rejected(before), &rejected(names));
    }
}

fn by_text<'n>(names: impl Iterator<Item = (&'n usize, &'n String)>) -> BTreeMap<String, &'n str> {
    names.map(|(cluster, name)| (cluster.to_string(), name.as_str())).collect()
}

fn moved(names: &Names) -> BTreeMap<String, &str> {
    let groups = names.images.iter().filter_map(|(id, place)| match place {
        Place::Group(name) => Some((id.clone(), name.as_str())),
        Place::Rejected => None,
    });
    groups.collect()
}

fn rejected(names: &Names) -> BTreeSet<&str> {
    names.images.iter().filter(|(_, place)| **place == Place::Rejected).map(|(id, _)| id.as_str()).collect()
}

/// Sets a text; comments around it stay.
fn put(table: &mut dyn TableLike, key: &str, text: &str) {
    match table.get_mut(key).and_then(Node::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = text.into();
            *old.decor_mut() = decor;
        }
        None => drop(table.insert(key, value(text))),
    }
}

fn write_table(document: &mut DocumentMut, name: &str, before: &BTreeMap<String, &str>, now: &BTreeMap<String, &str>) {
    if before == now {
        return;
    }
    let node = document.entry(name).or_insert_with(|| Node::Table(Table::new()));
    // Not one by one: each would move all that stand behind it.
    let stays = |key: &str| !before.contains_key(key) || now.contains_key(key);
    match node {
        Node::Table(table) => table.retain(|key, _| stays(key)),
        Node::Value(Value::InlineTable(table)) => table.retain(|key, _| stays(key)),
        _ => return,
    }
    let Some(table) = node.as_table_like_mut() else { return };
    for (key, name) in now.iter().filter(|(key, name)| before.get(*key) != Some(name)) {
        put(table, key, name);
    }
}

fn write_rejected(document: &mut DocumentMut, before: &BTreeSet<&str>, now: &BTreeSet<&str>) {
    if before == now {
        return;
    }
    let node = document.entry("rejected").or_insert_with(|| value(Array::new()));
    let Some(array) = node.as_array_mut() else { return };
    array.retain(|value| value.as_str().is_some_and(|id| now.contains(id)));
    for id in now.difference(before) {
        array.push_formatted(Value::from(*id).decorated("\n    ", ""));
    }
    array.set_trailing(if array.is_empty() { "" } else { "\n" });
    array.set_trailing_comma(!array.is_empty());
}

/// A text that is read, for the lines of its faults.
struct Text<'a> {
    path: &'a Path,
    text: &'a str,
}

/// The line that a text ends in, from 1.
fn lines(text: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n').count()
}

impl Text<'_> {
    fn line(&self, span: Option<std::ops::Range<usize>>) -> usize {
        lines(&self.text.as_bytes()[..span.map_or(0, |span| span.start.min(self.text.len()))])
    }

    fn wrong(&self, span: Option<std::ops::Range<usize>>, what: impl Into<String>) -> NamesError {
        NamesError::Value { path: self.path.display().to_string(), line: self.line(span), what: what.into() }
    }

    fn names(&self, root: &Table) -> Result<Names, NamesError> {
        let mut names = Names::default();
        for (key, node) in root {
            match key {
                "of" => {
                    let digest = self.text_of(node, "of")?.parse();
                    names.of = Some(digest.map_err(|error| self.wrong(node.span(), format!("`of`: {error}")))?);
                }
                "stage" => names.stage = Some(self.text_of(node, "stage")?.to_owned()),
                "rejected" => {
                    let Some(array) = node.as_array() else {
                        return Err(self.wrong(node.span(), "`rejected` is not a list of images"));
                    };
                    for id in array {
                        let text = id.as_str().ok_or_else(|| self.wrong(id.span(), "an image in `rejected` is not a text"))?;
                        names.images.insert(text.to_owned(), Place::Rejected);
                    }
                }
                "clusters" | "images" => {}
                _ => {
                    let span = root.key(key).and_then(Key::span);
                    return Err(self.wrong(span, format!("`{key}` is not known")));
                }
            }
        }
        self.each(root, "clusters", |key, span, name| {
            let cluster = key.parse::<usize>().ok().filter(|cluster| cluster.to_string() == key);
            let cluster = cluster.ok_or_else(|| self.wrong(span, format!("`{key}` is not the number of a cluster")))?;
            names.clusters.insert(cluster, name.to_owned());
            Ok(())
        })?;
        self.each(root, "images", |key, span, name| {
            match names.images.insert(key.to_owned(), Place::Group(name.to_owned())) {
                None => Ok(()),
                Some(_) => Err(self.wrong(span, format!("the image `{key}` is in a group, and rejected"))),
            }
        })?;
        if names.of.is_none() && names.highest().is_some() {
            return Err(self.wrong(None, "`of` is missing: it says which result has these clusters"));
        }
        Ok(names)
    }

    fn text_of<'n>(&self, node: &'n Node, what: &str) -> Result<&'n str, NamesError> {
        node.as_str().ok_or_else(|| self.wrong(node.span(), format!("`{what}` is not a text in quotes")))
    }

    /// Each key of a table, with the name behind it.
    fn each(
        &self,
        root: &Table,
        table: &str,
        mut take: impl FnMut(&str, Option<std::ops::Range<usize>>, &str) -> Result<(), NamesError>,
    ) -> Result<(), NamesError> {
        let Some(node) = root.get(table) else { return Ok(()) };
        let Some(entries) = node.as_table_like() else {
            return Err(self.wrong(node.span(), format!("`{table}` is not a table")));
        };
        for (key, node) in entries.iter() {
            let name = self.text_of(node, &format!("{table}.{key}"))?;
            ruled(name).map_err(|error| self.wrong(node.span(), error.to_string()))?;
            take(key, entries.key(key).and_then(Key::span), name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# mine
of = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262" # the first run
stage = "assignments"
rejected = [
    # blurred
    "ab",
    "cd",
]

[clusters] # by hand
0 = "shirts"
3 = "shirts" # the dark ones

[images]
"a/1.png" = "shoes"
"#;

    fn group(name: &str) -> Place {
        Place::Group(name.to_owned())
    }

    fn image(id: &str) -> Item {
        Item::Image(id.to_owned())
    }

    fn written(dir: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = dir.path().join("p.names.toml");
        fs::write_atomic(&path, text.as_bytes()).unwrap();
        path
    }

    fn set(path: &Path, item: &Item, place: Option<Place>) -> Change {
        NamesFile::edit(path, |file| file.set(item, place)).unwrap().0
    }

    #[test]
    fn only_what_was_changed_changes_and_a_change_undone_leaves_the_text_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(&dir, TEXT);
        let names = Names::read(&path).unwrap();
        assert_eq!(names.clusters, BTreeMap::from([(0, "shirts".into()), (3, "shirts".into())]));
        assert_eq!((names.place(&image("ab")), names.place(&image("a/1.png"))), (Some(Place::Rejected), Some(group("shoes"))));
        for (item, place, line) in [
            (Item::Cluster(3), Some(group("dark shirts")), "3 = \"dark shirts\" # the dark ones\n"),
            (Item::Cluster(7), Some(group("hats")), "3 = \"shirts\" # the dark ones\n7 = \"hats\"\n"),
            (image("a/1.png"), Some(group("hats")), "\"a/1.png\" = \"hats\"\n"),
            (image("ef"), Some(Place::Rejected), "    \"cd\",\n    \"ef\",\n]"),
        ] {
            let change = set(&path, &item, place.clone());
            assert_eq!(change.after, place);
            let text = fs::read_text(&path).unwrap();
            assert!(text.contains(line) && text.contains("# blurred") && text.starts_with("# mine\n"), "{text}");
            set(&path, &item, change.before);
            assert_eq!(fs::read_text(&path).unwrap(), TEXT);
        }
        let change = set(&path, &image("cd"), Some(group("shoes")));
        assert_eq!(change.before, Some(Place::Rejected));
        assert_eq!(Names::read(&path).unwrap().place(&image("cd")), Some(group("shoes")));
        set(&path, &image("cd"), change.before);
        assert_eq!(Names::read(&path).unwrap(), names);
    }

    #[test]
    fn a_file_begins_with_the_first_name_and_what_says_nothing_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.names.toml");
        set(&path, &Item::Cluster(3), Some(group("cluster 3")));
        assert!(!fs::exists(&path));
        let result = Digest::of(b"a");
        let (_, file) = NamesFile::edit(&path, |file| {
            file.set_result("assignments", result);
            file.set(&Item::Cluster(3), Some(group("\"odd\" name")))?;
            file.set(&image("x"), Some(Place::Rejected))?;
            file.set(&image("y"), Some(group("shoes")))
        })
        .unwrap();
        assert_eq!(Names::read(&path).unwrap(), *file.names());
        assert_eq!(file.revision(), NamesFile::read(&path).unwrap().revision());
        assert!(fs::read_text(&path).unwrap().starts_with(HEAD), "{}", fs::read_text(&path).unwrap());
        let stamp = fs::metadata(&path).unwrap().unwrap().modified().unwrap();
        set(&path, &image("y"), Some(group("shoes")));
        assert_eq!(fs::metadata(&path).unwrap().unwrap().modified().unwrap(), stamp);
        assert!(NamesFile::edit(&path, |file| file.set(&image("y"), Some(group("a/b")))).is_err());
        assert!(NamesFile::edit(&path, |file| file.set(&Item::Cluster(1), Some(Place::Rejected))).is_err());
        assert_eq!(Names::read(&path).unwrap(), *file.names());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let of = format!("of = \"{}\"\n", Digest::of(b"").hex());
        for (text, line, what) in [
            ("of = 3\n", 1, "`of` is not a text"),
            ("of = \"ab\"\n", 1, "is not a digest"),
            ("\nrejectet = []\n", 2, "`rejectet` is not known"),
            ("rejected = \"ab\"\n", 1, "not a list"),
            ("rejected = [\n\"a\",\n3]\n", 3, "not a text"),
            ("[clusters]\n0 = \"a\"\n", 1, "`of` is missing"),
            (&format!("{of}[clusters]\nx = \"a\"\n"), 3, "`x` is not the number of a cluster"),
            (&format!("{of}[clusters]\n01 = \"a\"\n"), 3, "`01` is not the number"),
            (&format!("{of}[clusters]\n1 = \"a/b\"\n"), 3, "cannot be the name"),
            ("rejected = [\"a\"]\n[images]\na = \"b\"\n", 3, "in a group, and rejected"),
            ("images = 3\n", 1, "not a table"),
            ("a = \n", 1, "is not TOML"),
            ("[images]\na = \"b\"\na = \"c\"\n", 3, "is not TOML"),
        ] {
            let error = Names::read(&written(&dir, text)).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains(&format!("line {line}:")), "{text}: {error}");
        }
        fs::write_atomic(&dir.path().join("p.names.toml"), b"# a\n# \xe9t\xe9\n").unwrap();
        let error = Names::read(&dir.path().join("p.names.toml")).unwrap_err().to_string();
        assert!(error.contains("line 2: it is not UTF-8"), "{error}");
        assert_eq!(Names::read(&dir.path().join("none.toml")).unwrap(), Names::default());
    }

    #[test]
    fn names_of_another_result_are_refused_and_images_stay_what_they_are() {
        let (path, result) = (Path::new("p.names.toml"), Digest::of(b"a"));
        let check = |names: &Names, result, clusters| names.check(path, "assignments", result, clusters);
        let images = BTreeMap::from([("a".to_owned(), Place::Group("shoes".to_owned()))]);
        let mut names = Names { images, ..Names::default() };
        assert!(check(&names, result, 3).is_ok());
        names.clusters.insert(2, "hats".into());
        assert!(matches!(check(&names, result, 3), Err(NamesError::Stale { .. })));
        names.of = Some(result);
        assert!(check(&names, result, 3).is_ok());
        assert!(matches!(check(&names, Digest::of(b"b"), 3), Err(NamesError::Stale { .. })));
        assert!(matches!(check(&names, result, 2), Err(NamesError::NoCluster { cluster: 2, .. })));
        names.clusters.clear();
        names.images.insert("b".into(), Place::Group("cluster 1".into()));
        assert!(matches!(check(&names, Digest::of(b"b"), 3), Err(NamesError::Stale { .. })), "it lies where that cluster is");
    }

    #[test]
    fn two_who_write_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.names.toml");
        std::thread::scope(|scope| {
            for who in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for number in 0..10 {
                        set(path, &image(&format!("{who}-{number}")), Some(group("shoes")));
                    }
                });
            }
        });
        assert_eq!(Names::read(&path).unwrap().images.len(), 40);
        assert_eq!(fs::list(dir.path()).unwrap(), [path]);
    }
}
