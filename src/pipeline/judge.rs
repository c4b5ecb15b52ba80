//! The check of stored results against what their stages declare.

use std::path::Path;

use super::catalog::Registry;
use kinset_artifact::parquet::TableReader;
use kinset_base::fault::chain;
use kinset_stage::{AnyStage, OutputInfo};
use kinset_store::Record;
use kinset_store::digest::Digest;
use kinset_store::verify::Judge;

impl Registry {
    fn declared(&self) -> impl Iterator<Item = &'static OutputInfo> {
        self.0.iter().flat_map(|stage| AnyStage::outputs(*stage))
    }
}

impl Judge for Registry {
    /// A stage or a version of one that is not known here may have had other outputs.
    fn undeclared(&self, record: &Record) -> Option<String> {
        let stage = self.find(&record.kind).filter(|stage| AnyStage::version(*stage) == record.version)?;
        let declared = AnyStage::outputs(stage);
        for info in declared {
            let Some(output) = record.outputs.get(info.name) else {
                if info.optional {
                    continue;
                }
                return Some(format!("it has no output `{}`", info.name));
            };
            let files: Vec<&str> = output.files.iter().map(|file| file.name.as_str()).collect();
            if output.kind != info.artifact || files != info.files {
                let (found, wanted) = (files.join(", "), info.files.join(", "));
                let (name, is) = (info.name, &output.kind);
                return Some(format!("its output `{name}` is `{is}` ({found}) instead of `{}` ({wanted})", info.artifact));
            }
        }
        let extra = record.outputs.keys().find(|name| !declared.iter().any(|info| info.name == *name));
        extra.map(|name| format!("it has an output `{name}`, which its stage does not write"))
    }

    fn says(&self, artifact: &str, file: &str, path: &Path) -> Result<Option<Digest>, String> {
        let known = self.declared().find(|info| info.artifact == artifact && info.files.contains(&file));
        let Some(info) = known else { return Ok(None) };
        TableReader::open(path, info.artifact).and_then(|table| table.content()).map_err(|error| chain(&error))
    }
}
