//! Assignments under the names that a person gave to their clusters, with what that person moved or rejected; and the labels that are
//! in that. The types keep both from label-free training.

use std::path::PathBuf;

use serde::Serialize;

use kinset_artifact::assignments::{AssignmentTable, Assignments};
use kinset_artifact::groups::Groups;
use kinset_artifact::labels::Labels;
use kinset_artifact::{Draft, Stored};
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;
use kinset_base::unit;
use kinset_dataset::names::Names;
use kinset_dataset::names::carry::missing;
use kinset_stage::{Complaint, Context, RawFiles, Stage, StageError};

/// The name of the file in the key, wherever it lies.
const FILE: &str = "names.toml";

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// The file of names, relative to the pipeline's: that of `photos.toml` is `photos.names.toml`.
        file: PathBuf = "".into();
    }
    and named
}

impl Config {
    fn named(&self) -> Option<Complaint> {
        self.file.as_os_str().is_empty().then(|| {
            Complaint::new("file", "is not set").with_hint("name the file: that of `photos.toml` is `photos.names.toml`")
        })
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// Cluster and confidence of every image.
        assignments: Stored<Assignments>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The group of every image.
        groups: Draft<Groups>,
        /// The groups that have names, as labels; none while nothing has a name.
        labels: Option<Draft<Labels>>,
    }
}

/// Naming.
#[derive(Debug)]
pub struct Named;

impl Stage for Named {
    const KIND: &'static str = "named";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "groups and labels by a person's names: a TOML file that `kinset label` and `kinset view` write";

    type Config = Config;
    type In = In;
    type Out = Out;

    /// None while there is no such file: then every cluster is a group by itself.
    fn raw_files(config: &Config, places: &DataPaths) -> Result<RawFiles, StageError> {
        Ok(Vec::from_iter(RawFile::find(FILE, places.file(&config.file))?).into())
    }

    /// Where the file lies is no part of the key; what it says is.
    fn key_settings(_: &Config) -> Result<impl Serialize, StageError> {
        Ok(Config::default())
    }

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let path = cx.places.file(&config.file);
        let names = Names::read(&path).map_err(StageError::other)?;
        let table = AssignmentTable::load(&input.assignments)?;
        let stage = input.assignments.origin();
        names.check(&path, stage, input.assignments.digest(), table.clusters).map_err(StageError::other)?;
        cx.check()?;
        if names.is_empty() {
            cx.note(format!("`{}` names nothing yet: `kinset label` and `kinset view` write it", path.display()));
        }
        let lost = missing(&names, &table);
        if lost > 0 {
            let images = unit::counted(lost as u64, "image");
            cx.warn(format!("`{}` moves or rejects {images} that `{stage}` does not have", path.display()));
        }
        let labels =
            names.labels(&table).map(|labels| labels.save(&cx.out("labels")?).map_err(StageError::from)).transpose()?;
        Ok(Out { groups: names.groups(&table).save(&cx.out("groups")?)?, labels })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::groups::GroupTable;
    use kinset_artifact::labels::LabelTable;
    use kinset_artifact::testing::stored;
    use kinset_base::fs;
    use kinset_base::seed::Seed;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;

    fn run(dir: &Path, assignments: &Stored<Assignments>) -> Result<(Out, String), StageError> {
        let (heard, places) = (Heard::default(), DataPaths::new(dir, None, None));
        let cx =
            Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), dir.join("work"), dir.join("out"), &heard);
        let config = Config { file: "p.names.toml".into() };
        let files = Named::raw_files(&config, &places)?;
        assert_eq!(files.len(), usize::from(fs::exists(&dir.join("p.names.toml"))));
        let out = Named::run(&config, In { assignments: assignments.clone() }, &cx)?;
        Ok((out, format!("{:?}", heard.signals())))
    }

    #[test]
    fn groups_and_labels_are_what_the_file_says_and_never_of_another_result() {
        let dir = tempfile::tempdir().unwrap();
        let table = AssignmentTable {
            ids: ["a", "b", "c"].map(String::from).to_vec(),
            clusters: 2,
            cluster: vec![0, 1, 1],
            confidence: vec![0.5; 3],
            entropy: vec![0.1; 3],
            second_cluster: vec![1, 0, 0],
        };
        let assignments = stored(&table.save(dir.path()).unwrap());
        let (out, said) = run(dir.path(), &assignments).unwrap();
        assert_eq!(GroupTable::load(&stored(&out.groups)).unwrap().group, ["cluster 0", "cluster 1", "cluster 1"]);
        assert!(out.labels.is_none() && said.contains("names nothing yet"), "{said}");

        let write = |of: &str| {
            let text =
                format!("of = \"{of}\"\nrejected = [\"c\"]\n[clusters]\n1 = \"shoes\"\n[images]\na = \"hats\"\nz = \"hats\"\n");
            fs::write_atomic(&dir.path().join("p.names.toml"), text.as_bytes()).unwrap();
        };
        write(&assignments.digest().hex());
        let (out, said) = run(dir.path(), &assignments).unwrap();
        assert_eq!(GroupTable::load(&stored(&out.groups)).unwrap().group, ["hats", "shoes", ""]);
        let labels = LabelTable::load(&stored(&out.labels.unwrap())).unwrap();
        assert_eq!((labels.names, labels.labels), (vec!["shoes".to_owned(), "hats".to_owned()], vec![1, 0, -1]));
        assert!(said.contains("moves or rejects 1 image that"), "{said}");

        write(&"0".repeat(64));
        let error = run(dir.path(), &assignments).unwrap_err();
        assert!(error.to_string().contains("names the clusters of another result"), "{error}");
    }
}
