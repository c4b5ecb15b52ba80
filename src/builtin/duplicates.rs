//! Images that are there twice: with the same pixels, whatever file they lie in, and nearly so.
//!
//! Near copies are found by small copies of the pictures, 16 × 16 pixels in color, of which brightness is taken away: the cosine of two
//! such copies is the correlation of the pictures, which another size, another compression and another exposure hardly change. Features
//! may be compared instead, which finds some that were trimmed; but an encoder says what is in a picture, and two pictures of one thing
//! are alike to it as well.
//!
//! A group is what is near to the image that is kept, not a chain of images near to each other: on 1,786 drawings a chain made one group of
//! 97 stars, down to a similarity of 0.33.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rayon::prelude::*;

use kinset_artifact::duplicates::{DuplicateTable, Duplicates};
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::images::{ImageSet, Images, for_each};
use kinset_artifact::pixels::Pixels;
use kinset_artifact::{Draft, Stored};
use kinset_base::unit::counted;
use kinset_kernel::gemm::Gemm;
use kinset_math::cosine;
use kinset_math::curate::join::{self, Rows};
use kinset_stage::{Context, Stage, StageError};
use kinset_store::digest::{Digest, Hasher};

/// Pictures that are decoded together; nothing of this depends on the thread count.
const CHUNK: usize = 256;
/// Pictures are looked at once: they need not stay decoded.
const BUDGET: u64 = 256 << 20;
/// Pixels along a side of a small copy.
const SIDE: usize = 16;
/// A small copy whose values are nowhere farther from their mean than this, of 255, is of one color, and like nothing.
const FLAT: f32 = 0.5;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Images with this cosine or more are near-duplicates. For features the number depends on the encoder: look at
        /// the groups in the report, and raise it if they are not the same picture.
        similarity: f64 = 0.99, within 0.0..=1.0;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, H, W, C]`.
        images: Stored<Images>,
        /// `[N, D]`; compared instead of small copies of the images.
        features: Option<Stored<Features>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// Which image stands for which.
        duplicates: Draft<Duplicates>,
    }
}

/// The search for duplicates.
#[derive(Debug)]
pub struct FindDuplicates;

impl Stage for FindDuplicates {
    const KIND: &'static str = "duplicates";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "find images that are there twice: equal pixels, or nearly equal ones";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let images = ImageSet::open_within(&input.images, BUDGET)?;
        let n = images.len();
        let (pixels, small) = look(&images, cx)?;
        let order = by_merit(&images, &input.images, &pixels)?;
        let (values, dim, by, flat) = match &input.features {
            Some(stored) => {
                let table = FeatureTable::load(stored)?;
                if table.ids != images.ids() {
                    return Err(StageError::Mismatch {
                        what: format!(
                            "`{}` and `{}` are not of the same images in one order",
                            stored.origin(),
                            input.images.origin()
                        ),
                        hint: "name the images that were embedded".into(),
                    });
                }
                (table.values, table.dim, "features", 0.0)
            }
            None => (small, SIDE * SIDE * images.channels(), "small copies", FLAT),
        };
        let row = |row: u32| &values[row as usize * dim..(row as usize + 1) * dim];
        let directed = |of: u32| row(of).iter().any(|value| value.abs() > flat);
        // Places in the order of merit: the first of a group stands for it.
        let mut first: BTreeMap<Digest, usize> = BTreeMap::new();
        let mut owner: Vec<usize> =
            order.iter().enumerate().map(|(place, &row)| *first.entry(pixels[row as usize]).or_insert(place)).collect();
        // Of a hundred exact copies one is compared.
        let heads: Vec<usize> = (0..n).filter(|&place| owner[place] == place && directed(order[place])).collect();
        let compared = unit(heads.iter().flat_map(|&place| row(order[place]).iter().copied()).collect(), dim);
        let rows = Rows::new(&compared, dim);
        // Pairs come by row: when a row's pairs come, nothing better can stand for it any more. What is near to that alone is no reason
        // to join it: over many small steps strangers would be one group.
        join::pairs(&rows, &rows, true, config.similarity, &Gemm, &cx.stop, |one, other, _| {
            let (one, other) = (heads[one], heads[other]);
            if owner[one] == one && owner[other] == other {
                owner[other] = one;
            }
        })?;
        let mut table = DuplicateTable {
            ids: images.ids().to_vec(),
            representative: vec![0; n],
            exact: vec![true; n],
            similarity: vec![1.0; n],
            least: config.similarity,
            by: by.to_owned(),
        };
        for place in 0..n {
            let (at, of) = (order[place] as usize, order[owner[owner[place]]]);
            table.representative[at] = of;
            table.exact[at] = pixels[at] == pixels[of as usize];
            if !table.exact[at] {
                // Of the first with these pixels, which was compared.
                let head = order[first[&pixels[at]]];
                let pair = unit([row(head), row(of)].concat(), dim);
                let pair = Rows::new(&pair, dim);
                table.similarity[at] = pair.cosine(0, &pair, 1) as f32;
            }
        }
        let groups = table.groups();
        let copies: usize = groups.iter().map(|group| group.len() - 1).sum();
        let repeat = if copies == 1 { "repeats another" } else { "repeat others" };
        cx.note(format!("{} {repeat}, in {}", counted(copies as u64, "image"), counted(groups.len() as u64, "group")));
        Ok(Out { duplicates: table.save(&cx.out("duplicates")?)? })
    }
}

/// Rows that have a direction, at unit length.
fn unit(mut rows: Vec<f32>, dim: usize) -> Vec<f32> {
    let none = cosine::normalize_rows(&mut rows, dim);
    debug_assert!(none.is_empty(), "rows {none:?} have no direction");
    rows
}

/// Rows, the best to keep first: the most pixels, then the longest file (what was compressed again is shorter; of equal pixels the
/// shortest counts), then the shortest path (copies have longer names), then the first by path and row.
fn by_merit(images: &ImageSet, stored: &Stored<Images>, pixels: &[Digest]) -> Result<Vec<u32>, StageError> {
    let (mut shortest, mut paths) = (BTreeMap::<Digest, usize>::new(), Vec::with_capacity(images.len()));
    for_each(stored, |row, _, bytes, path| {
        // Arrays have no file, and how long their PNG is says nothing.
        let length = if path.is_empty() { 0 } else { bytes.len() };
        shortest.entry(pixels[row]).and_modify(|known| *known = length.min(*known)).or_insert(length);
        paths.push(path.to_owned());
        Ok::<(), StageError>(())
    })?;
    let merit = |row: u32| {
        let row = row as usize;
        let (width, height) = images.size(row);
        (Reverse(width * height), Reverse(shortest[&pixels[row]]), paths[row].chars().count(), &paths[row])
    };
    let mut order: Vec<u32> = (0..images.len() as u32).collect();
    order.sort_by(|&a, &b| merit(a).cmp(&merit(b)).then(a.cmp(&b)));
    Ok(order)
}

/// Of each picture the digest of its pixels, not of its file, and a small copy.
fn look(images: &ImageSet, cx: &Context<'_>) -> Result<(Vec<Digest>, Vec<f32>), StageError> {
    let bar = cx.bar(images.len() as u64, "images");
    let (mut digests, mut small) = (Vec::with_capacity(images.len()), Vec::new());
    let rows: Vec<usize> = (0..images.len()).collect();
    for chunk in rows.chunks(CHUNK) {
        cx.check()?;
        let see = |&row: &usize| images.show(row, |picture| (digest(picture), small_copy(picture)));
        let seen: Vec<_> = chunk.par_iter().map(see).collect();
        for one in seen {
            let (digest, copy) = one?;
            digests.push(digest);
            small.extend(copy);
        }
        bar.advance(chunk.len() as u64);
    }
    Ok((digests, small))
}

fn digest(picture: &Pixels) -> Digest {
    let shape = format!("{} {} {}", picture.width, picture.height, picture.channels);
    Hasher::derived("kinset 2026-11 pixels of a picture").field(&shape).update(&picture.data).finish()
}

/// The picture squeezed into `[SIDE, SIDE, C]`, each value the mean of what it covers, less the mean of all.
fn small_copy(picture: &Pixels) -> Vec<f32> {
    let Pixels { width, height, channels, data } = picture;
    let (across, down) = (covered(*width), covered(*height));
    let mut small = vec![0.0_f32; SIDE * SIDE * channels];
    let mut line = vec![0.0_f32; SIDE * channels];
    for (row, cells) in data.chunks_exact(width * channels).zip(&down) {
        line.fill(0.0);
        for (pixel, cells) in row.chunks_exact(*channels).zip(&across) {
            for &(cell, share) in cells {
                for (sum, value) in line[cell * channels..].iter_mut().zip(pixel) {
                    *sum += share * f32::from(*value);
                }
            }
        }
        for &(cell, share) in cells {
            let sums = &mut small[cell * SIDE * channels..(cell + 1) * SIDE * channels];
            sums.iter_mut().zip(&line).for_each(|(sum, value)| *sum += share * value);
        }
    }
    let mean = small.iter().map(|&value| f64::from(value)).sum::<f64>() / small.len() as f64;
    for value in &mut small {
        *value -= mean as f32;
    }
    small
}

/// Which cells of a small copy each of so many pixels lies in, with the share of the cell that it covers.
fn covered(pixels: usize) -> Vec<Vec<(usize, f32)>> {
    // In units of 1 / SIDE of a pixel, so that all ends are whole.
    let overlap = |pixel: usize, cell: usize| {
        let (begin, end) = ((pixel * SIDE).max(cell * pixels), ((pixel + 1) * SIDE).min((cell + 1) * pixels));
        end.saturating_sub(begin)
    };
    let cells = |pixel: usize| pixel * SIDE / pixels..((pixel + 1) * SIDE).div_ceil(pixels);
    let of = |pixel: usize| cells(pixel).map(|cell| (cell, overlap(pixel, cell) as f32 / pixels as f32)).collect();
    (0..pixels).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_artifact::image_codec;
    use kinset_artifact::images::{ImagesInfo, ImagesWriter, Picture};
    use kinset_artifact::testing::stored;
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;
    use kinset_stage::testing::Heard;

    #[test]
    fn small_copies_average_what_they_cover_whatever_the_size() {
        for pixels in [16, 5, 40, 100, 3, 1, 33] {
            let mut whole = [0.0_f32; SIDE];
            covered(pixels).iter().flatten().for_each(|&(cell, share)| whole[cell] += share);
            assert!(whole.iter().all(|sum| (sum - 1.0).abs() < 1e-5), "{pixels}: {whole:?}");
        }
        let step = Pixels::new(32, 16, 1, (0..512).map(|i| if i % 32 < 16 { 0 } else { 200 }).collect());
        let half = |value: f32| move |found: &f32| (found - value).abs() < 1e-3;
        assert!(
            small_copy(&step).chunks(SIDE).all(|row| row[..8].iter().all(half(-100.0)) && row[8..].iter().all(half(100.0)))
        );
        assert!(small_copy(&Pixels::new(9, 7, 3, vec![77; 189])).iter().all(|value| value.abs() <= FLAT), "one color");
    }

    /// A pattern of so many pixels a side, seen in this brightness.
    fn pattern(side: usize, seed: usize, bright: f64) -> Pixels {
        let value = |x: usize, y: usize| {
            let (x, y) = (x as f64 / side as f64, y as f64 / side as f64);
            let wave = (7.0 * x + seed as f64).sin() * (5.0 * y + 2.0 * seed as f64).cos() * (3.0 * x * y + seed as f64).sin();
            ((wave * 100.0 + 128.0) * bright) as u8
        };
        Pixels::new(side, side, 3, (0..side * side).flat_map(|i| [value(i % side, i / side); 3]).collect())
    }

    fn found(pictures: Vec<Picture>, config: &Config) -> DuplicateTable {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = ImagesWriter::create(dir.path(), &ImagesInfo::new("test")).unwrap();
        for picture in pictures {
            writer.push(picture).unwrap();
        }
        let images = stored(&writer.finish().unwrap().0);
        let (places, heard) = (DataPaths::new("", None, None), Heard::default());
        let (work, out) = (dir.path().join("work"), dir.path().join("out"));
        fs::create_folders(&work).unwrap();
        fs::create_folders(&out).unwrap();
        let stop = kinset_stage::Stop::default();
        let cx =
            Context::new("it", candle_core::Device::Cpu, kinset_base::seed::Seed::new(1), &places, stop, work, out, &heard);
        let drafts = FindDuplicates::run(config, In { images, features: None }, &cx).unwrap().duplicates;
        DuplicateTable::load(&stored(&drafts)).unwrap()
    }

    #[test]
    fn copies_of_other_size_brightness_and_file_are_found_and_the_largest_is_kept() {
        let file = |picture: &Pixels, path: &str| Picture::file(image_codec::encode_png("x", picture).unwrap(), path);
        let pictures = vec![
            file(&pattern(24, 1, 1.0), "s.png"),
            file(&pattern(64, 2, 1.0), "other.png"),
            file(&pattern(64, 1, 0.8), "dark.png"),
            // The same pixels twice, one of them in another file.
            file(&pattern(64, 1, 1.0), "a copy.png"),
            Picture::file(image_codec::encode_for_page("x", &pattern(64, 3, 1.0), 100).unwrap().1, "third.png"),
            file(&Pixels::new(8, 8, 3, vec![9; 192]), "flat.png"),
            file(&Pixels::new(9, 9, 3, vec![200; 243]), "flatter.png"),
            file(&pattern(64, 1, 1.0), "a.png"),
        ];
        let table = found(pictures, &Config::default());
        assert_eq!(table.representative, [7, 1, 7, 7, 4, 5, 6, 7], "{table:?}");
        assert_eq!(table.exact, [false, true, false, true, true, true, true, true]);
        assert!(table.similarity[0] > 0.99 && table.similarity[0] < 1.0 && table.similarity[3] >= 1.0);
        assert_eq!(table.groups(), [vec![7, 3, 2, 0]]);
        let flat = |value: u8| Picture::Raw(Pixels::new(4, 4, 1, vec![value; 16]));
        assert_eq!(found(vec![flat(1), flat(2), flat(1)], &Config::default()).groups(), [vec![0, 2]], "nothing to compare");
    }
}
