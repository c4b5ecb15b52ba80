//! Features and neighbors for `kinset export`, as NumPy, tables, PyTorch and TensorBoard's projector read them.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::common::{Failure, Held};
use crate::artifact::features::FeatureReader;
use crate::artifact::neighbors::NeighborTable;
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs::{self, At, File};
use crate::base::output::{self, Output};
use crate::base::unit;
use crate::report::lines::{Form, field, table_lines};

/// Why a table was not exported.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("cannot write features to `{path}`: expected an NPY, safetensors, CSV or Parquet file, or a folder")]
    Features { path: String },
    #[error("cannot write neighbors to `{path}`: expected an NPY, CSV, JSON lines or Parquet file")]
    Neighbors { path: String },
    #[error("`{path}`, the list of names that belongs to `{output}`, already exists without it")]
    Foreign { path: String, output: String },
    #[error("image {row} is called {name:?}, which does not fit into one line of a list of names")]
    Name { row: usize, name: String },
    #[error("`--with-self` works only with neighbors in an NPY file, and `{path}` is to be another")]
    WithSelf { path: String },
}

impl Fault for Trouble {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Features { .. } => Exit::Usage.code("export::ending").hint(
                "end the name in `.npy`, `.safetensors`, `.csv` or `.parquet`, or name a folder for TensorBoard's projector",
            ),
            Self::Neighbors { .. } => {
                Exit::Usage.code("export::ending").hint("end the name in `.npy`, `.csv`, `.jsonl` or `.parquet`")
            }
            Self::Foreign { .. } => {
                Exit::Usage.code("export::foreign").hint("name another file with `--output`, or move that one away")
            }
            Self::Name { .. } => {
                Exit::Usage.code("export::name").hint("end the name in `.csv` or `.parquet`, which take any name")
            }
            Self::WithSelf { .. } => {
                Exit::Usage.code("export::with-self").hint("leave `--with-self` out, or end the name in `.npy`")
            }
        }
    }
}

/// The ending of a path, in small letters.
pub(super) fn ending(path: &Path) -> Option<String> {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

/// `[N, D]`, row group by row group.
pub(super) fn features(place: &Path, held: &Held) -> Result<Value, Failure> {
    let reader = FeatureReader::open(&held.typed())?;
    let (rows, dim) = (reader.len(), reader.dim());
    let mut beside = None;
    match ending(place).as_deref() {
        Some("parquet") => output::copy(&held.files[0], place)?,
        Some("csv") => {
            let columns: Vec<String> = (0..dim).map(|column| format!("f{column}")).collect();
            let output = Output::file(place)?;
            stream(output.create()?, place, &reader, format!("id,{}\n", columns.join(",")).as_bytes(), |to, row, vector| {
                write!(to, "{}", field(&reader.ids()[row]))?;
                vector.iter().try_for_each(|value| write!(to, ",{value}"))?;
                to.write_all(b"\n")
            })?;
            output.finish()?;
        }
        Some(form @ ("npy" | "safetensors")) => {
            let names = names_beside(place, reader.ids())?;
            let head = if form == "npy" { npy_head("<f4", &[rows, dim]) } else { safetensors_head("features", &[rows, dim]) };
            let output = Output::file(place)?;
            stream(output.create()?, place, &reader, &head, |to, _, vector| {
                vector.iter().try_for_each(|value| to.write_all(&value.to_le_bytes()))
            })?;
            output.finish()?;
            output::write(&names.path, names.text.as_bytes())?;
            beside = Some(names.path);
        }
        None => projector(place, &reader)?,
        Some(_) => return Err(Failure::own(Trouble::Features { path: place.display().to_string() })),
    }
    let names = beside.as_ref().map(|path| format!("; names: {}", path.display())).unwrap_or_default();
    let (count, stage, to) = (unit::count(rows as u64), &held.stage, place.display());
    Ok(json!({
        "said": format!("{count} × {dim} features of `{stage}` in {to}{names}"), "stage": stage, "artifact": held.kind,
        "to": to.to_string(), "names": beside.map(|path| path.display().to_string()), "images": rows, "dim": dim,
    }))
}

/// Writes a head and all vectors into a file that will be at `place`.
fn stream(
    file: File,
    place: &Path,
    reader: &FeatureReader,
    head: &[u8],
    mut line: impl FnMut(&mut dyn Write, usize, &[f32]) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let mut to = BufWriter::with_capacity(1 << 18, file);
    to.write_all(head).at("write", place)?;
    let mut first = 0;
    for group in 0..reader.groups() {
        let values = reader.group(group, first)?;
        for (vector, row) in values.chunks_exact(reader.dim()).zip(first..) {
            line(&mut to, row, vector).at("write", place)?;
        }
        first += reader.group_rows(group);
    }
    to.flush().at("write", place)?;
    Ok(to.get_ref().sync_all().at("flush", place)?)
}

/// A folder that TensorBoard's embedding projector opens with `--logdir`.
fn projector(place: &Path, reader: &FeatureReader) -> Result<(), Failure> {
    let output = Output::folder(place)?;
    let folder = output.path()?.to_owned();
    let vectors = fs::create_new(&folder.join("vectors.tsv")).map_err(|error| output.named(error))?;
    stream(vectors, &place.join("vectors.tsv"), reader, b"", |to, _, vector| {
        let cells: Vec<String> = vector.iter().map(f32::to_string).collect();
        writeln!(to, "{}", cells.join("\t"))
    })?;
    // One column of metadata has no header there.
    let names: String = reader.ids().iter().map(|id| id.replace(['\t', '\n', '\r'], " ") + "\n").collect();
    let config =
        "embeddings {\n  tensor_name: \"features\"\n  tensor_path: \"vectors.tsv\"\n  metadata_path: \"metadata.tsv\"\n}\n";
    for (name, text) in [("metadata.tsv", names.as_str()), ("projector_config.pbtxt", config)] {
        fs::write_atomic(&folder.join(name), text.as_bytes()).map_err(|error| output.named(error))?;
    }
    Ok(output.finish()?)
}

/// `[N, M]` rows, or an edge a line.
pub(super) fn neighbors(place: &Path, with_self: bool, held: &Held) -> Result<Value, Failure> {
    let form = ending(place);
    if with_self && form.as_deref() != Some("npy") {
        return Err(Failure::own(Trouble::WithSelf { path: place.display().to_string() }));
    }
    let table = NeighborTable::load(&held.typed())?;
    match form.as_deref() {
        Some("parquet") => output::copy(&held.files[0], place)?,
        Some("npy") => {
            let width = table.k + usize::from(with_self);
            let mut bytes = npy_head("<i8", &[table.len(), width]);
            for row in 0..table.len() {
                let own = with_self.then_some(row as u32);
                for &index in own.iter().chain(table.neighbors(row)) {
                    bytes.extend_from_slice(&i64::from(index).to_le_bytes());
                }
            }
            output::write(place, &bytes)?;
        }
        Some(form @ ("csv" | "jsonl" | "ndjson")) => {
            let form = if form == "csv" { Form::Csv } else { Form::JsonLines };
            let mut edges = Vec::with_capacity(table.index.len());
            for (row, source) in table.ids.iter().enumerate() {
                for (rank, (&target, similarity)) in (1..).zip(table.neighbors(row).iter().zip(table.similarities(row))) {
                    edges.push(vec![
                        json!(source),
                        json!(table.ids[target as usize]),
                        json!(rank),
                        similarity.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value)),
                    ]);
                }
            }
            let text = table_lines(form, &["source", "target", "rank", "similarity"], &edges);
            output::write(place, text.as_bytes())?;
        }
        _ => return Err(Failure::own(Trouble::Neighbors { path: place.display().to_string() })),
    }
    let (count, stage, to, k) = (unit::count(table.len() as u64), &held.stage, place.display(), table.k);
    Ok(json!({
        "said": format!("{k} neighbors of {count} images of `{stage}` in {to}"), "stage": stage, "artifact": held.kind,
        "to": to.to_string(), "images": table.len(), "k": k,
    }))
}

/// A list of names, one a line, for a form that has no room for them.
struct Names {
    path: PathBuf,
    text: String,
}

/// # Errors
/// If a name has more than one line, or such a list is there without what it belongs to: nobody asked for that one to be written.
fn names_beside(place: &Path, ids: &[String]) -> Result<Names, Failure> {
    let path = place.with_extension("names.txt");
    if let Some((row, name)) = ids.iter().enumerate().find(|(_, id)| id.is_empty() || id.contains(['\n', '\r'])) {
        return Err(Failure::own(Trouble::Name { row, name: name.clone() }));
    }
    let text = ids.join("\n") + "\n";
    let there = (fs::exists(&path) || fs::is_link(&path)) && !fs::exists(place);
    // The same features in another form have the same list.
    if there && fs::read_at_most(&path, text.len() as u64).ok().is_none_or(|found| found != text.as_bytes()) {
        let (path, output) = (path.display().to_string(), place.display().to_string());
        return Err(Failure::own(Trouble::Foreign { path, output }));
    }
    Ok(Names { path, text })
}

/// The begin of an array of NumPy (NEP 1, version 1.0), rows first, its data on a border of 64 bytes.
fn npy_head(kind: &str, shape: &[usize]) -> Vec<u8> {
    let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}), }}", shape.join(", "));
    // Magic, version and length are 10 bytes, the line's end is one.
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 11;
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    text.push('\n');
    let mut head = b"\x93NUMPY\x01\x00".to_vec();
    head.extend_from_slice(&(text.len() as u16).to_le_bytes());
    head.extend_from_slice(text.as_bytes());
    head
}

/// The begin of a safetensors file of one tensor in single precision, its data on a border of 8 bytes.
fn safetensors_head(name: &str, shape: &[usize]) -> Vec<u8> {
    let bytes = 4 * shape.iter().product::<usize>();
    let mut text = json!({ name: { "dtype": "F32", "shape": shape, "data_offsets": [0, bytes] } }).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_what_their_readers_expect() {
        let head = npy_head("<f4", &[123_456, 7]);
        assert!(head.len().is_multiple_of(64) && head.ends_with(b" \n"));
        assert_eq!(usize::from(u16::from_le_bytes([head[8], head[9]])), head.len() - 10);
        let head = safetensors_head("features", &[2, 3]);
        let (length, text) = head.split_first_chunk::<8>().unwrap();
        assert_eq!(u64::from_le_bytes(*length), text.len() as u64);
        let text: Value = serde_json::from_slice(text).unwrap();
        assert_eq!(text["features"], json!({ "dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24] }));
        assert!(head.len().is_multiple_of(8));
    }

    #[test]
    fn names_that_fit_no_line_and_lists_of_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f.npy");
        let ids = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(names_beside(&place, &ids(&["a", "b c"])).ok().map(|names| names.text).as_deref(), Some("a\nb c\n"));
        for wrong in ["", "a\nb", "a\r"] {
            assert!(names_beside(&place, &ids(&["a", wrong])).is_err(), "{wrong:?}");
        }
        fs::write_atomic(&dir.path().join("f.names.txt"), b"mine").unwrap();
        assert!(names_beside(&place, &ids(&["a"])).is_err());
        fs::write_atomic(&place, b"an earlier export").unwrap();
        assert!(names_beside(&place, &ids(&["a"])).is_ok());
    }
}
