//! Near-duplicates within and across a pool, a target and held-out sets, by their features, however many there are.

use super::search::{self, Answer, Rule};
use super::sets::Sets;
use kinset_artifact::features::Features;
use kinset_artifact::near_duplicates::{
    NearCopy, NearDuplicates as NearDuplicatesArtifact, NearMember, NearSet, NearShare, NearSummary, NearTable,
};
use kinset_artifact::{Draft, Stored};
use kinset_math::curate::groups::Link;
use kinset_math::curate::join::Rows;
use kinset_stage::{Context, Parts, Stage, StageError};

/// Bytes of vectors whose cosines with what stands for them are taken together.
const TOGETHER: usize = 128 << 20;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Images whose features have this cosine or more are near-duplicates. Which number means one picture depends on the encoder: look at
        /// the groups, and raise it if they are not the same picture.
        similarity: f64 = 0.98, within 0.0..=1.0;
        /// What makes a group: near the image that stands for it (`star`), or near any image of it (`chain`, which may join strangers over
        /// many small steps).
        link: Link = Link::Star;
        /// Compare the images of each set with each other. Without it only sets are compared, which tells what a test set shares with a pool,
        /// and costs little.
        within: bool = true;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// `[N, D]`: the images that shall not repeat, in one shard or several.
        pool: Parts<Vec<Stored<Features>>>,
        /// `[T, D]`: what a selection of the pool shall look like.
        target: Option<Stored<Features>>,
        /// Images that must not be in the pool: test sets.
        held_out: Parts<Option<Vec<Stored<Features>>>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The groups, and what sets share.
        near_duplicates: Draft<NearDuplicatesArtifact>,
    }
}

/// The search for near-duplicates.
#[derive(Debug)]
pub struct NearDuplicates;

impl Stage for NearDuplicates {
    const KIND: &'static str = "near_duplicates";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "find what repeats within and across a pool, a target and test sets; it is streamed";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let mut all: Vec<(String, &[Stored<Features>])> = vec![("pool".into(), &input.pool)];
        all.extend(input.target.as_ref().map(|target| ("target".to_owned(), std::slice::from_ref(target))));
        let held_out = input.held_out.iter().flatten().enumerate();
        all.extend(held_out.map(|(place, stored)| (format!("held_out[{place}]"), std::slice::from_ref(stored))));
        if all.len() == 1 && !config.within {
            return Err(StageError::Mismatch {
                what: "there is nothing to compare: one set, and `within` is false".into(),
                hint: "connect `target` or `held_out`, or set `within = true`".into(),
            });
        }
        let sets = Sets::open(all)?;
        sets.readings().for_each(|reading| cx.read(reading));
        let bar = cx.bar(sets.len() as u64, "images");
        let heads = sets.exact(&cx.stop, |images| bar.advance(images as u64))?;
        let rule = Rule { least: config.similarity, link: config.link, within: config.within };
        let answer = search::search(&sets, &heads, rule, cx)?;
        let table = table(&sets, &heads, &answer, rule, cx)?;
        table.summary.told(&|set| format!("`{}`", set.name)).into_iter().for_each(|line| cx.note(line));
        let draft = table.save(&cx.out("near_duplicates")?, |set, row| sets.id(set as usize, row))?;
        Ok(Out { near_duplicates: draft })
    }
}

/// Groups of two images or more, and what sets share.
fn table(sets: &Sets, heads: &[u32], answer: &Answer, rule: Rule, cx: &Context<'_>) -> Result<NearTable, StageError> {
    let Answer { roots, shared } = answer;
    let mut sizes = vec![0_u32; roots.len()];
    for &root in roots {
        sizes[root as usize] += 1;
    }
    // By the image that stands for the group, which is the first of its rows.
    let mut rows: Vec<(u32, u32)> =
        (0..).zip(roots).filter(|(_, root)| sizes[**root as usize] > 1).map(|(row, root)| (*root, row)).collect();
    rows.sort_unstable();
    let similarity = similarities(sets, heads, &rows, cx)?;
    let (mut members, mut group) = (Vec::with_capacity(rows.len()), 0);
    let mut summaries: Vec<NearSet> = sets
        .all()
        .iter()
        .map(|set| NearSet {
            name: set.name.clone(),
            features: set.features.clone(),
            images: set.rows.len(),
            repeats: 0,
            exact: 0,
        })
        .collect();
    for (place, &(root, row)) in rows.iter().enumerate() {
        if place > 0 && rows[place - 1].0 != root {
            group += 1;
        }
        let ((set, own), similarity, exact) = (sets.place(row), similarity[place].0, similarity[place].1);
        // What is in another set is told apart, of every pair.
        let repeats = row != root && sets.place(root).0 == set;
        summaries[set].repeats += usize::from(repeats);
        summaries[set].exact += usize::from(repeats && exact);
        members.push(NearMember { group, set: set as u32, row: own, exact, similarity });
    }
    let (mut copies, mut shares) = (Vec::new(), Vec::new());
    for (set, later) in sets.all().iter().enumerate() {
        for (other, earlier) in sets.all().iter().enumerate().take(set) {
            let copied = |row: &u32| shared.is_copy(set, other, heads[*row as usize] - earlier.rows.start);
            let mut share = NearShare { set, images: 0, other, copies: earlier.rows.clone().filter(copied).count() };
            for row in later.rows.clone() {
                let Some(nearest) = shared.nearest(set, other, heads[row as usize]) else { continue };
                share.images += 1;
                copies.push(NearCopy {
                    set: set as u32,
                    row: row - later.rows.start,
                    other: other as u32,
                    other_row: nearest.row - earlier.rows.start,
                    similarity: nearest.cosine as f32,
                    copies: nearest.copies,
                });
            }
            shares.push(share);
        }
    }
    copies.sort_by_key(|copy| (copy.set, copy.row, copy.other));
    let summary = NearSummary {
        sets: summaries,
        least: rule.least,
        link: rule.link,
        within: rule.within,
        groups: members.last().map_or(0, |member| member.group as usize + 1),
        largest: sizes.iter().copied().filter(|size| *size > 1).max().unwrap_or(0) as usize,
        farthest: members.iter().map(|member| member.similarity).fold(1.0, f32::min),
        shared: shares,
    };
    Ok(NearTable { summary, members, shared: copies })
}

/// The cosine of each row with the one that stands for it, and whether both are the same numbers.
fn similarities(sets: &Sets, heads: &[u32], rows: &[(u32, u32)], cx: &Context<'_>) -> Result<Vec<(f32, bool)>, StageError> {
    let (dim, mut found) = (sets.dim(), Vec::with_capacity(rows.len()));
    for rows in rows.chunks((TOGETHER / (8 * dim)).max(1)) {
        cx.check()?;
        // Of both ends the first exact copies, each once.
        let mut needed: Vec<u32> = rows.iter().flat_map(|&(root, row)| [heads[root as usize], heads[row as usize]]).collect();
        needed.sort_unstable();
        needed.dedup();
        let values = sets.some(&needed)?;
        let vectors = Rows::new(&values, dim);
        let place = |row: u32| needed.partition_point(|other| *other < heads[row as usize]);
        found.extend(rows.iter().map(|&(root, row)| {
            let (one, other) = (place(root), place(row));
            let exact = one == other || vectors.row(one) == vectors.row(other);
            (if exact { 1.0 } else { vectors.cosine(one, &vectors, other) as f32 }, exact)
        }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::features::FeaturesWriter;
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_kernel::gemm::Gemm;
    use kinset_math::cosine::normalize_rows;
    use kinset_math::curate::groups;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;
    use kinset_store::digest::Digest;

    const DIM: usize = 12;

    /// Rows around some centers, of which every fourth copies an earlier one bit for bit.
    fn rows(count: usize, seed: u64) -> Vec<f32> {
        let (mut rng, mut centers) = (Seed::new(seed).rng(), Seed::new(9).rng());
        let centers: Vec<f64> = (0..40 * DIM).map(|_| centers.normal()).collect();
        let mut rows: Vec<f32> = Vec::with_capacity(count * DIM);
        for row in 0..count {
            if row % 4 == 3 {
                let copied = rng.below(row) * DIM;
                rows.extend_from_within(copied..copied + DIM);
            } else {
                let center = &centers[rng.below(40) * DIM..][..DIM];
                rows.extend(center.iter().map(|x| (x + 0.12 * rng.normal()) as f32));
            }
        }
        assert!(normalize_rows(&mut rows, DIM).is_empty());
        rows
    }

    fn stored(folder: &Path, values: &[f32]) -> Stored<Features> {
        fs::create_folders(folder).unwrap();
        let mut writer = FeaturesWriter::create(folder, DIM, true, "test", "test").unwrap();
        let name = folder.file_name().unwrap().display().to_string();
        for (piece, values) in values.chunks(100 * DIM).enumerate() {
            let ids: Vec<String> = (0..values.len() / DIM).map(|row| format!("{name} {}", piece * 100 + row)).collect();
            writer.push(&ids, values).unwrap();
        }
        let draft = writer.finish().unwrap();
        Stored::new(vec![draft.files[0].path.clone()], Digest::of(name.as_bytes()), name)
    }

    fn input(dir: &Path, sizes: &[usize], shards: usize) -> (In, Vec<Vec<f32>>) {
        let sets: Vec<Vec<f32>> = (1..).zip(sizes).map(|(seed, size)| rows(*size, seed)).collect();
        let cut = (sizes[0].div_ceil(shards)) * DIM;
        let pool = sets[0].chunks(cut).enumerate().map(|(at, rows)| stored(&dir.join(format!("pool{at}")), rows)).collect();
        let rest: Vec<Stored<Features>> =
            sets[1..].iter().enumerate().map(|(at, rows)| stored(&dir.join(format!("set{at}")), rows)).collect();
        let held_out = (rest.len() > 1).then(|| rest[1..].to_vec());
        (In { pool: Parts(pool), target: rest.first().cloned(), held_out: Parts(held_out) }, sets)
    }

    fn run(dir: &Path, config: &Config, input: &In, stop: &Stop) -> Result<(NearTable, Vec<String>, Vec<String>), StageError> {
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let (work, out) = (dir.join("work"), dir.join("out"));
        fs::create_folders(&work).unwrap();
        let cx = Context::new("near", Device::Cpu, Seed::new(1), &places, stop.clone(), work, out, &heard);
        let In { pool, target, held_out } = input;
        let input = In { pool: pool.clone(), target: target.clone(), held_out: held_out.clone() };
        let files = NearDuplicates::run(config, input, &cx)?.near_duplicates.files;
        let stored = Stored::new(files.into_iter().map(|file| file.path).collect(), Digest::of(b"n"), "n");
        let (table, names) = NearTable::load(&stored).unwrap();
        Ok((table, names.members, heard.texts()))
    }

    /// Of a row of a set and another set: the similarity of the most similar row there, that row, how many are near.
    type SharedRows = BTreeMap<(usize, u32, usize), (f32, u32, u32)>;

    /// The groups and what is shared, by comparing all pairs; without what orders them.
    fn brute(sets: &[Vec<f32>], config: &Config) -> (Vec<u32>, SharedRows) {
        let all = sets.concat();
        let vectors = Rows::new(&all, DIM);
        let found = groups::find(&vectors, config.link, config.similarity, &Gemm, &Stop::default()).unwrap();
        let (mut shared, mut begins) = (BTreeMap::new(), vec![0]);
        for set in sets {
            begins.push(begins[begins.len() - 1] + set.len() / DIM);
        }
        for (set, other) in (0..sets.len()).flat_map(|set| (0..set).map(move |other| (set, other))) {
            for row in begins[set]..begins[set + 1] {
                let near: Vec<(f64, usize)> = (begins[other]..begins[other + 1])
                    .map(|column| {
                        let same = vectors.row(row) == vectors.row(column);
                        (if same { 1.0 } else { vectors.cosine(row, &vectors, column) }, column)
                    })
                    .filter(|(cosine, _)| *cosine >= config.similarity)
                    .collect();
                if let Some(best) = near.iter().min_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))) {
                    let value = (best.0 as f32, (best.1 - begins[other]) as u32, near.len() as u32);
                    shared.insert((set, (row - begins[set]) as u32, other), value);
                }
            }
        }
        (found.representative, shared)
    }

    #[test]
    fn groups_and_what_sets_share_are_those_of_all_pairs() {
        let dir = tempfile::tempdir().unwrap();
        let (input, sets) = input(dir.path(), &[900, 60, 200, 90], 3);
        for link in [Link::Star, Link::Chain] {
            let config = Config { similarity: 0.97, link, within: true };
            let (found, names, heard) = run(&dir.path().join(format!("{link:?}")), &config, &input, &Stop::default()).unwrap();
            let (roots, shared) = brute(&sets, &config);
            let begins = [0, 900, 960, 1160];
            let mut seen: Vec<u32> = (0..roots.len() as u32).collect();
            for group in found.members.chunk_by(|a, b| a.group == b.group) {
                let number = |member: &NearMember| begins[member.set as usize] + member.row;
                for member in group {
                    seen[number(member) as usize] = number(&group[0]);
                }
                assert!(group.len() > 1 && group[0].similarity >= 1.0);
            }
            assert_eq!(seen, roots, "{link:?}");
            let told: BTreeMap<_, _> = found
                .shared
                .iter()
                .map(|copy| {
                    let key = (copy.set as usize, copy.row, copy.other as usize);
                    (key, (copy.similarity, copy.other_row, copy.copies))
                })
                .collect();
            assert_eq!(told, shared, "{link:?}");
            let summary = &found.summary;
            let own = found
                .members
                .chunk_by(|a, b| a.group == b.group)
                .map(|group| group[1..].iter().filter(|member| member.set == group[0].set).count());
            assert_eq!(summary.sets.iter().map(|set| set.repeats).sum::<usize>(), own.sum::<usize>());
            assert!(summary.sets[0].exact > 20 && summary.largest > 4 && summary.farthest < 1.0, "{summary:?}");
            assert!(link == Link::Chain || summary.farthest >= 0.97_f32, "a star reaches one step: {}", summary.farthest);
            assert!(names[0].starts_with("pool0 "), "{}", names[0]);
            let share = summary.shared.iter().find(|share| (share.set, share.other) == (2, 0)).unwrap();
            let line = format!(
                "{} of 200 images of `held_out[0]` have a near copy in `pool`: {} images of it",
                share.images, share.copies
            );
            assert!(heard.contains(&line), "{heard:?}");
            assert!(share.images > 50 && share.copies > share.images);
        }
    }

    #[test]
    fn sets_alone_are_compared_where_nobody_asks_for_more() {
        let dir = tempfile::tempdir().unwrap();
        let (input, sets) = input(dir.path(), &[500, 50, 80], 2);
        let config = Config { similarity: 0.97, within: false, ..Config::default() };
        let (found, _, heard) = run(dir.path(), &config, &input, &Stop::default()).unwrap();
        assert_eq!(found.shared.len(), brute(&sets, &config).1.len());
        assert!(
            heard.iter().any(|line| line.contains("of 80 images of `held_out[0]` have a near copy in `pool`")),
            "{heard:?}"
        );
        let alone = In { target: None, held_out: Parts(None), pool: input.pool };
        assert!(run(dir.path(), &config, &alone, &Stop::default()).unwrap_err().to_string().contains("nothing to compare"));
    }

    #[test]
    fn a_pool_that_is_all_one_image_is_one_group() {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = Seed::new(3).rng();
        // Nearly the same, and each of them different.
        let mut values: Vec<f32> = (0..3000 * DIM).map(|at| (1.0 + (at % DIM) as f64 + 0.01 * rng.normal()) as f32).collect();
        assert!(normalize_rows(&mut values, DIM).is_empty());
        let input = In { pool: Parts(vec![stored(&dir.path().join("p"), &values)]), target: None, held_out: Parts(None) };
        for link in [Link::Star, Link::Chain] {
            let config = Config { link, ..Config::default() };
            let (found, _, heard) = run(&dir.path().join(format!("{link:?}")), &config, &input, &Stop::default()).unwrap();
            assert_eq!((found.summary.groups, found.summary.largest), (1, 3000));
            assert!(
                heard.contains(&"2,999 of 3,000 images of `pool` repeat others, 0 with equal features".to_owned()),
                "{heard:?}"
            );
        }
    }

    #[test]
    fn a_search_that_is_stopped_anywhere_goes_on_to_the_same_groups() {
        let dir = tempfile::tempdir().unwrap();
        let (input, _) = input(dir.path(), &[1500, 40, 120], 2);
        let config = Config { similarity: 0.97, ..Config::default() };
        let never = Stop::after(u64::MAX);
        let (expected, ..) = run(&dir.path().join("whole"), &config, &input, &never).unwrap();
        let looks = never.looks();
        for part in 1..8 {
            let folder = dir.path().join(part.to_string());
            let stopped = run(&folder, &config, &input, &Stop::after(looks * part / 8));
            assert!(matches!(stopped, Err(StageError::Stopped)), "part {part}");
            let _ = run(&folder, &config, &input, &Stop::after(looks / 2));
            assert_eq!(run(&folder, &config, &input, &Stop::default()).unwrap().0, expected, "part {part}");
        }
    }
}
