//! Near-duplicates: which images of a pool, a target and held-out sets are one image, more or less, and what the sets share.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{ArtifactError, Result, display};
use super::meta::{Meta, read_json, write_json};
use super::parquet::TableReader;
use super::table::{self, column};
use super::{Artifact, Draft, DraftFile, Stored};
use kinset_base::unit::{count, counted};
use kinset_math::curate::groups::Link;

const FILE: &str = "near_duplicates.parquet";
const SHARED: &str = "shared.parquet";
const SUMMARY: &str = "summary.json";

/// Groups of near-duplicates over several sets of features, in two Parquet tables and a summary.
///
/// - `near_duplicates.parquet`, the images of groups of two or more, group by group, the image that stands for the group first: `group`
///   (from 0), `kept` (it stands for the group), `set` (`pool`, `target`, `held_out[0]`, …), `row` (in its set; shards of a pool one after
///   the other), `id`, `exact` (its features are those of the image that stands for it, bit for bit), `similarity` (cosine with that).
/// - `shared.parquet`, the images with a near copy in a set before theirs, in the order pool, target, held-out sets: `set`, `row`, `id`,
///   `other` (that set), `other_row`, `other_id` (the most similar image there), `similarity`, `copies` (how many are near there). A pair is
///   near by itself here, whatever a group joins.
/// - `summary.json`: [`NearSummary`].
#[derive(Debug)]
pub enum NearDuplicates {}

artifact!(NearDuplicates, "near_duplicates", [FILE, SHARED, SUMMARY], label_free);

/// What was compared, and how much of it repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearSummary {
    /// The sets, in their order.
    pub sets: Vec<NearSet>,
    /// The least cosine of two images that are near.
    pub least: f64,
    pub link: Link,
    /// Whether images of one set were compared with each other.
    pub within: bool,
    /// Groups of two images or more.
    pub groups: usize,
    /// Images in the largest group.
    pub largest: usize,
    /// The least cosine of an image with the one that stands for it: far below `least` if a chain has joined strangers.
    pub farthest: f32,
    pub shared: Vec<NearShare>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearSet {
    /// `pool`, `target`, `held_out[0]`, …
    pub name: String,
    /// What the features say, shard by shard.
    pub features: Vec<String>,
    pub images: usize,
    /// Images that another one of the set stands for.
    pub repeats: usize,
    /// Of these, with the same features bit for bit.
    pub exact: usize,
}

/// What two sets have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearShare {
    /// A set, by its place.
    pub set: usize,
    /// Images of it that have a near copy in the other.
    pub images: usize,
    /// A set before it.
    pub other: usize,
    /// Images of the other that are near one of this.
    pub copies: usize,
}

/// An image in a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NearMember {
    pub group: u32,
    pub set: u32,
    /// In its set.
    pub row: u32,
    pub exact: bool,
    pub similarity: f32,
}

/// An image, and the most similar one of an earlier set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NearCopy {
    pub set: u32,
    pub row: u32,
    pub other: u32,
    pub other_row: u32,
    pub similarity: f32,
    /// Images of the other set that are near.
    pub copies: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NearTable {
    pub summary: NearSummary,
    /// Group by group, what stands for it first.
    pub members: Vec<NearMember>,
    /// By set, by row, by the other set.
    pub shared: Vec<NearCopy>,
}

/// The names of the images of a table, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NearNames {
    pub members: Vec<String>,
    /// Each with the name of what it is near to.
    pub shared: Vec<(String, String)>,
}

impl NearSummary {
    /// What was found, in words: a line for each set, and one for each pair of sets, under the names that `name` gives to sets.
    pub fn told(&self, name: &dyn Fn(&NearSet) -> String) -> Vec<String> {
        let images = |number: usize| counted(number as u64, "image");
        let repeating = |set: &&NearSet| self.within || set.repeats > 0;
        let mut lines: Vec<String> = self
            .sets
            .iter()
            .filter(repeating)
            .map(|set| {
                let (repeats, all, exact) = (count(set.repeats as u64), images(set.images), count(set.exact as u64));
                let word = if set.repeats == 1 { "repeats another one" } else { "repeat others" };
                format!("{repeats} of {all} of {} {word}, {exact} with equal features", name(set))
            })
            .collect();
        lines.extend(self.shared.iter().map(|share| {
            let (set, other) = (&self.sets[share.set], &self.sets[share.other]);
            let word = if share.images == 1 { "has a near copy" } else { "have a near copy" };
            let copies = if share.copies > 0 { format!(": {} of it", images(share.copies)) } else { String::new() };
            format!(
                "{} of {} of {} {word} in {}{copies}",
                count(share.images as u64),
                images(set.images),
                name(set),
                name(other)
            )
        }));
        lines
    }
}

impl NearTable {
    /// Writes its files into a folder. `name` is the name of a row of a set.
    ///
    /// # Errors
    /// If the tables contradict each other, or a file cannot be written.
    pub fn save(&self, dir: &Path, name: impl Fn(u32, u32) -> String) -> Result<Draft<NearDuplicates>> {
        self.check(&dir.join(FILE))?;
        let set = |set: u32| self.summary.sets[set as usize].name.clone();
        let meta = Meta::new(NearDuplicates::KIND).with("least", self.summary.least);
        let members = table::save(dir, FILE, meta, self.members.len(), |r| {
            let first = |at: usize| at == 0 || self.members[at - 1].group != self.members[at].group;
            let (begin, rows) = (r.start, &self.members[r]);
            vec![
                ("group", column(rows, |member| member.group)),
                ("kept", (begin..begin + rows.len()).map(first).collect::<Vec<bool>>().into()),
                ("set", column(rows, |member| set(member.set))),
                ("row", column(rows, |member| member.row)),
                ("id", column(rows, |member| name(member.set, member.row))),
                ("exact", column(rows, |member| member.exact)),
                ("similarity", column(rows, |member| member.similarity)),
            ]
        })?;
        let shared = table::save(dir, SHARED, Meta::new(NearDuplicates::KIND), self.shared.len(), |r| {
            let rows = &self.shared[r];
            vec![
                ("set", column(rows, |copy| set(copy.set))),
                ("row", column(rows, |copy| copy.row)),
                ("id", column(rows, |copy| name(copy.set, copy.row))),
                ("other", column(rows, |copy| set(copy.other))),
                ("other_row", column(rows, |copy| copy.other_row)),
                ("other_id", column(rows, |copy| name(copy.other, copy.other_row))),
                ("similarity", column(rows, |copy| copy.similarity)),
                ("copies", column(rows, |copy| copy.copies)),
            ]
        })?;
        let path = dir.join(SUMMARY);
        write_json(&path, NearDuplicates::KIND, &self.summary)?;
        Ok(Draft::new(vec![members, shared, DraftFile { name: SUMMARY, path, logical: None }]))
    }

    pub fn load(stored: &Stored<NearDuplicates>) -> Result<(Self, NearNames)> {
        let summary = Self::summary(stored)?;
        let path = stored.file(FILE);
        let reader = TableReader::open(path, NearDuplicates::KIND)?;
        let (group, row) = (reader.values::<u32>("group")?, reader.values::<u32>("row")?);
        let (exact, similarity) = (reader.values::<bool>("exact")?, reader.values::<f32>("similarity")?);
        let set = sets(&reader, "set", &summary)?;
        let member = |at: usize| NearMember {
            group: group[at],
            set: set[at],
            row: row[at],
            exact: exact[at],
            similarity: similarity[at],
        };
        let members = (0..group.len()).map(member).collect();
        let mut names = NearNames { members: reader.values("id")?, shared: Vec::new() };
        let reader = TableReader::open(stored.file(SHARED), NearDuplicates::KIND)?;
        let (row, other_row) = (reader.values::<u32>("row")?, reader.values::<u32>("other_row")?);
        let (copies, similarity) = (reader.values::<u32>("copies")?, reader.values::<f32>("similarity")?);
        let (set, other) = (sets(&reader, "set", &summary)?, sets(&reader, "other", &summary)?);
        let copy = |at: usize| NearCopy {
            set: set[at],
            row: row[at],
            other: other[at],
            other_row: other_row[at],
            similarity: similarity[at],
            copies: copies[at],
        };
        let shared = (0..row.len()).map(copy).collect();
        names.shared = reader.values::<String>("id")?.into_iter().zip(reader.values("other_id")?).collect();
        let table = Self { summary, members, shared };
        table.check(path)?;
        Ok((table, names))
    }

    /// Places in `shared` in the order in which a person should see them: last sets first, which must not be in others; the most similar first.
    pub fn by_weight(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.shared.len()).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (&self.shared[a], &self.shared[b]);
            (b.set, a.other).cmp(&(a.set, b.other)).then(b.similarity.total_cmp(&a.similarity)).then(a.row.cmp(&b.row))
        });
        order
    }

    /// Only the summary.
    pub fn summary(stored: &Stored<NearDuplicates>) -> Result<NearSummary> {
        read_json(stored.file(SUMMARY), NearDuplicates::KIND)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let NearSummary { sets, groups, shared, .. } = &self.summary;
        if sets.is_empty() {
            return Err(ArtifactError::Empty { path: display(path), what: "sets" });
        }
        table::check_count(path, self.members.len())?;
        let contradiction = |what: String| Err(ArtifactError::Contradiction { path: display(path), what });
        let exists = |set: u32, row: u32| sets.get(set as usize).is_some_and(|set| (row as usize) < set.images);
        let each = self.members.chunk_by(|a, b| a.group == b.group);
        let sizes: Vec<usize> = each.clone().map(<[NearMember]>::len).collect();
        let numbered = each.enumerate().all(|(number, group)| group[0].group as usize == number);
        if sizes.len() != *groups || !numbered || sizes.iter().any(|size| *size < 2) {
            return contradiction(format!("its rows are not {groups} groups of two images or more, numbered from 0"));
        }
        for (at, member) in self.members.iter().enumerate() {
            if !exists(member.set, member.row) {
                return Err(table::out_of_range(path, "row", at, member.row, "a row of its set"));
            }
            if !(-1.0..=1.0).contains(&member.similarity) {
                return Err(table::out_of_range(path, "similarity", at, member.similarity, "a cosine from -1 to 1"));
            }
        }
        for (at, copy) in self.shared.iter().enumerate() {
            if copy.other >= copy.set || !exists(copy.set, copy.row) || !exists(copy.other, copy.other_row) {
                return Err(table::out_of_range(path, "other_row", at, copy.other_row, "a row of an earlier set"));
            }
            if !(-1.0..=1.0).contains(&copy.similarity) {
                return Err(table::out_of_range(path, "similarity", at, copy.similarity, "a cosine from -1 to 1"));
            }
        }
        let counted = |share: &NearShare| {
            let mine = |copy: &&NearCopy| copy.set as usize == share.set && copy.other as usize == share.other;
            self.shared.iter().filter(mine).count()
        };
        match shared.iter().find(|share| share.set >= sets.len() || counted(share) != share.images) {
            Some(share) => contradiction(format!("{} images of set {} are said to be shared", share.images, share.set)),
            None => Ok(()),
        }
    }
}

/// A column of names of sets, as their places.
fn sets(reader: &TableReader, name: &str, summary: &NearSummary) -> Result<Vec<u32>> {
    let place = |(row, word): (usize, String)| {
        let place = summary.sets.iter().position(|set| set.name == word);
        let wanted = "a set of the summary";
        place.map(|place| place as u32).ok_or_else(|| table::out_of_range(reader.path(), name, row, word, wanted))
    };
    reader.values::<String>(name)?.into_iter().enumerate().map(place).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::stored;

    /// Two groups, of which one reaches into a test set.
    pub(crate) fn table() -> NearTable {
        let set = |name: &str, images, repeats, exact| NearSet {
            name: name.into(),
            features: vec!["ab".into()],
            images,
            repeats,
            exact,
        };
        let member = |group, set, row, exact, similarity| NearMember { group, set, row, exact, similarity };
        NearTable {
            summary: NearSummary {
                sets: vec![set("pool", 9, 2, 1), set("held_out[0]", 3, 1, 0)],
                least: 0.98,
                link: Link::Star,
                within: true,
                groups: 2,
                largest: 3,
                farthest: 0.981,
                shared: vec![NearShare { set: 1, images: 1, other: 0, copies: 2 }],
            },
            members: vec![
                member(0, 0, 1, true, 1.0),
                member(0, 0, 4, true, 1.0),
                member(1, 0, 2, true, 1.0),
                member(1, 0, 8, false, 0.99),
                member(1, 1, 0, false, 0.981),
            ],
            shared: vec![NearCopy { set: 1, row: 0, other: 0, other_row: 8, similarity: 0.99, copies: 2 }],
        }
    }

    pub(crate) fn name(set: u32, row: u32) -> String {
        format!("{set} {row}")
    }

    #[test]
    fn tables_come_back_with_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let stored = stored(&table().save(dir.path(), name).unwrap());
        let (found, names) = NearTable::load(&stored).unwrap();
        assert_eq!((found, NearTable::summary(&stored).unwrap()), (table(), table().summary));
        assert_eq!(names.members, ["0 1", "0 4", "0 2", "0 8", "1 0"]);
        assert_eq!(names.shared, [("1 0".to_owned(), "0 8".to_owned())]);
        let mut more = table();
        let copy = |set, row, similarity| NearCopy { set, row, similarity, ..more.shared[0] };
        more.shared = vec![copy(1, 0, 0.99), copy(1, 2, 0.995), copy(2, 5, 0.98)];
        assert_eq!(more.by_weight(), [2, 1, 0]);
        let reader = TableReader::open(stored.file(FILE), "near_duplicates").unwrap();
        assert_eq!(reader.values::<bool>("kept").unwrap(), [true, false, true, false, false]);
    }

    #[test]
    fn nothing_may_repeat() {
        let dir = tempfile::tempdir().unwrap();
        let mut none = NearTable { members: vec![], shared: vec![], ..table() };
        (none.summary.groups, none.summary.shared[0].images) = (0, 0);
        let stored = stored(&none.save(dir.path(), name).unwrap());
        assert_eq!(NearTable::load(&stored).unwrap(), (none, NearNames::default()));
    }

    #[test]
    fn contradictions_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut NearTable)| {
            let mut table = table();
            change(&mut table);
            table.save(dir.path(), name).unwrap_err().to_string()
        };
        assert!(refuse(|t| t.summary.groups = 3).contains("are not 3 groups"));
        assert!(refuse(|t| t.members.truncate(3)).contains("groups of two images or more"));
        assert!(refuse(|t| t.members[4].row = 3).contains("a row of its set"));
        assert!(refuse(|t| t.members[3].similarity = 1.5).contains("a cosine"));
        assert!(refuse(|t| t.shared[0].other = 1).contains("a row of an earlier set"));
        assert!(refuse(|t| t.shared.clear()).contains("1 images of set 1"));
        assert!(refuse(|t| t.summary.sets.clear()).contains("no sets"));
    }
}
