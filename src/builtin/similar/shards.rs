//! A pool in several shards, as one table: rows are counted over all of them, in the order in which they are wired.
//!
//! A shard of a file without names has row numbers for names. Where several have, they would be the same names for other images;
//! there an image is named by its row in the whole pool. So a shard that comes last changes no name. An image that is in several shards under
//! one name is one image: the first.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::retrieve::stage::{TARGET, same_dim, unit_group};
use kinset_artifact::Stored;
use kinset_artifact::features::{FeatureReader, Features};
use kinset_base::reading::Reading;
use kinset_base::{rows, unit};
use kinset_kernel::neighbors::NeighborError;
use kinset_math::cosine;
use kinset_math::curate::hierarchy::Take;
use kinset_stage::StageError;

/// Rows that are held at a time while many stream by.
const STEP: usize = 1 << 15;
/// The cosine of the features of one image, which were computed among different others.
const SAME: f64 = 1.0 - 1e-4;

/// A shard, a row group of it, the row of the pool that it begins with, and its rows.
type Group = (usize, usize, usize, usize);

/// Shards, open.
#[derive(Debug)]
pub struct Shards {
    readers: Vec<FeatureReader>,
    /// The row each begins with; one more at the end.
    starts: Vec<usize>,
    /// Which have row numbers for names and share them with others, so that their images are named by their row in the pool.
    by_row: Vec<bool>,
    /// Rows of images that an earlier shard has too; they ascend.
    copies: Vec<u32>,
    reading: Reading,
}

impl Shards {
    /// Opens shards; `target` is the dimension of a target that they must have.
    ///
    /// # Errors
    /// If one cannot be read, has features of another dimension than the target or the first shard, or a name stands in two of them for
    /// different images.
    pub fn open(stored: &[Stored<Features>], target: Option<usize>) -> Result<Self, StageError> {
        let (mut readers, mut starts) = (Vec::<FeatureReader>::new(), vec![0]);
        for shard in stored {
            let reader = FeatureReader::open(shard)?;
            let (dim, whose) = match (target, readers.first()) {
                (Some(dim), _) => (dim, TARGET),
                (None, first) => (first.map_or(reader.dim(), FeatureReader::dim), "the first shard of the pool"),
            };
            same_dim(dim, whose, &reader, shard.origin())?;
            starts.push(starts[starts.len() - 1] + reader.len());
            readers.push(reader);
        }
        let mut by_row: Vec<bool> = readers.iter().map(|reader| names_are_rows(reader.ids())).collect();
        if by_row.iter().filter(|by_row| **by_row).count() < 2 {
            by_row.fill(false);
        }
        let mut reading = Reading::default();
        let mut numbered: Vec<&Stored<Features>> =
            stored.iter().zip(&by_row).filter(|(_, by_row)| **by_row).map(|(s, _)| s).collect();
        if !numbered.is_empty() {
            let origins: Vec<String> = numbered.iter().map(|stored| format!("`{}`", stored.origin())).collect();
            reading.took(format!("images of {} by their row in the whole pool, as they have no names", origins.join(", ")));
        }
        numbered.sort_by_key(|stored| stored.digest());
        if let Some(pair) = numbered.windows(2).find(|pair| pair[0].digest() == pair[1].digest()) {
            return Err(StageError::Mismatch {
                what: format!("two shards of the pool are the same, `{}` and `{}`", pair[0].origin(), pair[1].origin()),
                hint: "each image of the pool must be in one shard only".into(),
            });
        }
        let mut shards = Self { readers, starts, by_row, copies: Vec::new(), reading };
        shards.distinct(stored)?;
        Ok(shards)
    }

    /// What stands for names that shards do not have.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Finds images that are in several shards: the same name, and the same features but for rounding.
    fn distinct(&mut self, stored: &[Stored<Features>]) -> Result<(), StageError> {
        if self.readers.len() < 2 {
            return Ok(());
        }
        let named = |shard: usize| {
            let rows = self.starts[shard] as u32..;
            self.readers[shard].ids().iter().map(String::as_str).zip(rows)
        };
        let mut names: Vec<(&str, u32)> =
            (0..self.readers.len()).filter(|shard| !self.by_row[*shard]).flat_map(named).collect();
        names.sort_unstable();
        let stands_twice = |name: &str, one: u32, other: u32, how: &str| {
            let origin = |row: u32| stored[self.shard(row as usize)].origin();
            StageError::Mismatch {
                what: format!(
                    "the image `{name}` is in two shards of the pool, `{}` and `{}`{how}",
                    origin(one.min(other)),
                    origin(one.max(other))
                ),
                hint: "each image of the pool must have a name of its own".into(),
            }
        };
        // A name that is the row of an image without one.
        for &(name, row) in &names {
            let number =
                name.parse::<u32>().ok().filter(|number| (*number as usize) < self.len() && number.to_string() == name);
            if let Some(number) = number.filter(|number| self.by_row[self.shard(*number as usize)]) {
                return Err(stands_twice(name, row, number, ""));
            }
        }
        let copies = names.chunk_by(|a, b| a.0 == b.0).flat_map(|same| same[1..].iter().map(|copy| (copy.1, same[0].1)));
        let mut copies: Vec<(u32, u32)> = copies.collect();
        copies.sort_unstable();
        for copies in copies.chunks(STEP) {
            let mut rows: Vec<u32> = copies.iter().flat_map(|&(row, first)| [row, first]).collect();
            rows.sort_unstable();
            rows.dedup();
            let values = self.rows(&rows)?;
            let vector = |row: u32| &values[rows.partition_point(|other| *other < row) * self.dim()..][..self.dim()];
            if let Some(&(row, first)) = copies.iter().find(|(row, first)| cosine::dot(vector(*row), vector(*first)) < SAME) {
                return Err(stands_twice(&self.id(row), first, row, ", with different features"));
            }
        }
        let mut left: BTreeMap<usize, usize> = BTreeMap::new();
        for (row, _) in &copies {
            *left.entry(self.shard(*row as usize)).or_default() += 1;
        }
        self.copies = copies.into_iter().map(|(row, _)| row).collect();
        for (shard, count) in left {
            let (images, are) = (unit::counted(count as u64, "image"), if count == 1 { "is" } else { "are" });
            self.reading.left(format!("{images} of `{}` that {are} in an earlier shard of the pool", stored[shard].origin()));
        }
        Ok(())
    }

    /// True of an image that an earlier shard has under the same name: it is one image.
    pub fn is_copy(&self, row: u32) -> bool {
        self.copies.binary_search(&row).is_ok()
    }

    /// Images in all of them, each once.
    pub fn distinct_len(&self) -> usize {
        self.len() - self.copies.len()
    }

    /// The row of an image, of those that are no copies counted from 0.
    pub fn distinct_row(&self, place: u32) -> u32 {
        // Copies up to the row are as many as those with that many others or fewer between them and the begin.
        let (mut low, mut high) = (0, self.copies.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.copies[middle] - middle as u32 <= place { low = middle + 1 } else { high = middle }
        }
        place + low as u32
    }

    /// Images in all of them.
    pub fn len(&self) -> usize {
        self.starts[self.readers.len()]
    }

    /// True if there is none; open shards always have some.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Images before a shard.
    pub fn start(&self, shard: usize) -> usize {
        self.starts[shard]
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.readers.first().map_or(1, FeatureReader::dim)
    }

    fn shard(&self, row: usize) -> usize {
        rows::table_of(&self.starts, |start| *start, row)
    }

    pub fn id(&self, row: u32) -> Cow<'_, str> {
        let shard = self.shard(row as usize);
        if self.by_row[shard] {
            return Cow::Owned(row.to_string());
        }
        Cow::Borrowed(&self.readers[shard].ids()[row as usize - self.starts[shard]])
    }

    /// Some vectors, `[rows, D]`, of unit length. `rows` must ascend.
    ///
    /// # Errors
    /// If they cannot be read, or one has no direction.
    pub fn rows(&self, rows: &[u32]) -> Result<Vec<f32>, StageError> {
        let mut values = Vec::with_capacity(rows.len() * self.dim());
        let mut rest = rows;
        for (shard, reader) in self.readers.iter().enumerate() {
            let (here, after) = rest.split_at(rest.partition_point(|&row| (row as usize) < self.starts[shard + 1]));
            rest = after;
            if here.is_empty() {
                continue;
            }
            let start = self.starts[shard];
            let inside: Vec<u32> = here.iter().map(|&row| (row as usize - start) as u32).collect();
            values.extend(reader.rows(&inside)?);
        }
        let zero = cosine::normalize_rows(&mut values, self.dim());
        match zero.first() {
            None => Ok(values),
            Some(&place) => Err(StageError::other(NeighborError::ZeroRow { row: rows[place] as usize })),
        }
    }

    /// Passes on all vectors from a row, a multiple of `size`, `size` at a time (at the end fewer), with the row of the first: the
    /// same blocks however the pool is cut. The next row group is read meanwhile.
    ///
    /// # Errors
    /// If they cannot be read, one has no direction, or `take` says so.
    pub fn blocks(&self, from: usize, size: usize, take: Take<'_, StageError>) -> Result<(), StageError> {
        let dim = self.dim();
        let mut groups = self.groups().filter(|&(_, _, first, rows)| first + rows > from).peekable();
        let read = |&(shard, group, first, _): &Group| unit_group(&self.readers[shard], group, first - self.starts[shard]);
        // Rows of the first group that come before `from`.
        let skipped = groups.peek().map_or(0, |&(_, _, first, _)| from.saturating_sub(first));
        let (mut first, mut waiting) = (from, Vec::new());
        let mut next = groups.next().map(|group| read(&group)).transpose()?;
        if let Some(values) = &mut next {
            values.drain(..skipped * dim);
        }
        while let Some(values) = next.take() {
            let (mut following, mut taken) = (None, Ok(()));
            let ahead = groups.next();
            rayon::in_place_scope(|scope| {
                let following = &mut following;
                scope.spawn(move |_| *following = ahead.map(|group| read(&group)));
                waiting.extend(values);
                let whole = waiting.len() / (size * dim) * size * dim;
                let last = ahead.is_none();
                let ready = if last { waiting.len() } else { whole };
                for block in waiting[..ready].chunks(size * dim) {
                    taken = take(first, block);
                    first += block.len() / dim;
                    if taken.is_err() {
                        return;
                    }
                }
                waiting.drain(..ready);
            });
            taken?;
            next = following.transpose()?;
        }
        Ok(())
    }

    fn groups(&self) -> impl Iterator<Item = Group> {
        self.readers.iter().enumerate().flat_map(|(shard, reader)| {
            let mut first = self.starts[shard];
            (0..reader.groups()).map(move |group| {
                let rows = reader.group_rows(group);
                first += rows;
                (shard, group, first - rows, rows)
            })
        })
    }

    /// Passes on some vectors, some thousand at a time, with the place of the first in `rows`, which must ascend.
    pub fn stream(
        &self,
        rows: &[u32],
        mut take: impl FnMut(usize, &[f32]) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        for (piece, rows) in rows.chunks(STEP).enumerate() {
            take(piece * STEP, &self.rows(rows)?)?;
        }
        Ok(())
    }
}

/// Whether the names are the numbers of the rows.
fn names_are_rows(ids: &[String]) -> bool {
    ids.iter().enumerate().all(|(row, id)| *id == row.to_string())
}

/// Passes on all vectors of a table, row group by row group, with the row of the first.
pub fn all(reader: &FeatureReader, mut take: impl FnMut(usize, &[f32]) -> Result<(), StageError>) -> Result<(), StageError> {
    let mut first = 0;
    for group in 0..reader.groups() {
        let values = unit_group(reader, group, first)?;
        take(first, &values)?;
        first += reader.group_rows(group);
    }
    Ok(())
}
