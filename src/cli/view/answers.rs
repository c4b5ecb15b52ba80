//! Answers to the page's requests: images with their clusters, names, pictures, neighbors, a map; and changes of names.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError, TryLockError};

use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Request, Response};
use super::thumbs::{Picture, Thumbs};
use crate::artifact::Stored;
use crate::artifact::assignments::AssignmentTable;
use crate::artifact::error::ArtifactError;
use crate::artifact::features::{FeatureReader, Features};
use crate::artifact::neighbors::NeighborTable;
use crate::base::fault::chain;
use crate::base::seed::Seed;
use crate::cli::pictures::{Pictures, rows_of};
use crate::dataset::names::{Change, Item, NamesError, NamesFile, Place};
use crate::math::pca::principal;
use crate::math::tsne::Tsne;
use crate::report::gather::Sights;
use crate::store::digest::Digest;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Images on the map: more would keep the page waiting for a minute.
const ON_MAP: usize = 10_000;
/// Images on the map by t-SNE, which looks at every pair of them many times.
const ON_NEAR_MAP: usize = 2000;

/// What is looked at, and where its names go.
pub(super) struct Answers {
    pipeline: String,
    stage: String,
    result: Digest,
    table: AssignmentTable,
    path: PathBuf,
    thumbs: Option<Thumbs>,
    near: Option<Near>,
    features: Option<Stored<Features>>,
    map: OnceLock<Response>,
    /// The same by t-SNE.
    near_map: OnceLock<Response>,
    /// Held while the file of names is changed.
    writing: Mutex<()>,
}

/// Mined neighbors, in rows of the assignments.
struct Near {
    table: NeighborTable,
    /// The row of the neighbors for each row of the assignments.
    row: Vec<Option<u32>>,
    /// And the other way.
    back: Vec<Option<u32>>,
}

/// A change that the page asks for. Rows are those of the assignments.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Ask {
    Name {
        cluster: usize,
        name: String,
    },
    Rename {
        old: String,
        new: String,
    },
    Move {
        rows: Vec<usize>,
        group: String,
    },
    Reject {
        rows: Vec<usize>,
    },
    Restore {
        rows: Vec<usize>,
    },
    /// Takes changes back, those of which nobody has changed anything since.
    Undo {
        changes: Vec<Change>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    /// The revision of the file that the page shows.
    revision: String,
    ask: Ask,
}

impl Answers {
    /// Opens what belongs to the assignments, as far as it is there.
    ///
    /// # Errors
    /// Pictures or neighbors that cannot be read.
    pub(super) fn open(
        pipeline: &str,
        stage: &str,
        result: Digest,
        table: AssignmentTable,
        path: PathBuf,
        sights: Sights,
    ) -> Result<Self, ArtifactError> {
        let thumbs = sights.images.map(|images| Pictures::of(images, &table.ids)).transpose()?.map(Thumbs);
        let near = sights.neighbors.map(|stored| {
            let near = NeighborTable::load(&stored)?;
            Ok::<_, ArtifactError>(Near {
                row: rows_of(&table.ids, &near.ids),
                back: rows_of(&near.ids, &table.ids),
                table: near,
            })
        });
        Ok(Self {
            pipeline: pipeline.to_owned(),
            stage: stage.to_owned(),
            result,
            thumbs,
            near: near.transpose()?,
            features: sights.features,
            table,
            path,
            map: OnceLock::new(),
            near_map: OnceLock::new(),
            writing: Mutex::default(),
        })
    }

    /// True if no change is under way.
    pub(super) fn is_idle(&self) -> bool {
        !matches!(self.writing.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Answers what was asked behind the token.
    pub(super) fn answer(&self, rest: &str, request: &Request) -> Response {
        let (what, row) = rest.split_once('/').unwrap_or((rest, ""));
        let row = row.parse::<usize>().ok().filter(|row| *row < self.table.len());
        let get = request.method != "POST";
        match (what, row) {
            ("", None) if get => Response::new(200, "text/html; charset=utf-8", PAGE),
            ("page.css", None) if get => Response::new(200, "text/css; charset=utf-8", STYLE),
            ("page.js", None) if get => Response::new(200, "text/javascript; charset=utf-8", SCRIPT),
            ("data", None) if get => self.data(),
            ("names", None) if get => self.names(None),
            ("names", None) => self.names(Some(&request.body)),
            ("square", Some(row)) if get => self.picture(|thumbs| thumbs.square(row)),
            ("whole", Some(row)) if get => self.picture(|thumbs| thumbs.whole(row)),
            ("near", Some(row)) if get => self.near(row),
            ("map", None) if get => self.map.get_or_init(|| self.make_map(ON_MAP, along_components)).clone(),
            ("tsne", None) if get => {
                let place = |rows: &[f32], dim: usize| Tsne::default().place(rows, dim);
                self.near_map.get_or_init(|| self.make_map(ON_NEAR_MAP, place)).clone()
            }
            ("edit", None) if !get => self.edit(&request.body),
            _ => Response::text(404, "there is nothing here"),
        }
    }

    fn data(&self) -> Response {
        let paths = self.thumbs.as_ref().map(|thumbs| thumbs.0.paths()).transpose();
        let paths = match paths {
            Ok(paths) => paths.filter(|paths| paths.iter().any(|path| !path.is_empty())),
            Err(error) => return failed(&error),
        };
        let confidence: Vec<f64> = self.table.confidence.iter().map(|&p| (f64::from(p) * 1e4).round() / 1e4).collect();
        as_json(
            200,
            &json!({
                "pipeline": self.pipeline, "stage": self.stage, "file": self.path.display().to_string(),
                "clusters": self.table.clusters, "ids": self.table.ids, "paths": paths, "cluster": self.table.cluster,
                "confidence": confidence, "pictures": self.thumbs.is_some(), "near": self.near.is_some(),
                "map": self.features.is_some(),
            }),
        )
    }

    /// The names as they are; nothing if the page has this revision already.
    fn names(&self, known: Option<&[u8]>) -> Response {
        let file = match NamesFile::read(&self.path) {
            Ok(file) => file,
            Err(error) => return failed(&error),
        };
        if known.is_some_and(|known| known == json!(file.revision()).to_string().as_bytes()) {
            return Response::new(204, "application/json", Vec::new());
        }
        match file.names().check(&self.path, &self.stage, self.result, self.table.clusters) {
            Ok(()) => as_json(200, &self.shown(&file)),
            Err(error) => failed(&error),
        }
    }

    fn shown(&self, file: &NamesFile) -> Value {
        let names = file.names();
        let known: Vec<&String> = names.images.keys().collect();
        let ids: Vec<String> = known.into_iter().cloned().collect();
        let rows = rows_of(&ids, &self.table.ids);
        let moved: Vec<Value> = rows
            .iter()
            .zip(names.images.values())
            .filter_map(|(row, place)| {
                let group = match place {
                    Place::Group(name) => Some(name),
                    Place::Rejected => None,
                };
                row.map(|row| json!([row, group]))
            })
            .collect();
        json!({ "revision": file.revision(), "clusters": names.clusters, "moved": moved })
    }

    fn edit(&self, body: &[u8]) -> Response {
        let edit: Edit = match serde_json::from_slice(body) {
            Ok(edit) => edit,
            Err(error) => return refused(400, &format!("the page asks for what is not known: {error}")),
        };
        let _held = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let done = NamesFile::edit(&self.path, |file| {
            file.names().check(&self.path, &self.stage, self.result, self.table.clusters)?;
            let others = file.revision() != edit.revision;
            let (changes, skipped) = self.change(file, edit.ask)?;
            if file.names().highest().is_some() {
                file.set_result(&self.stage, self.result);
            }
            Ok::<_, NamesError>((others, changes, skipped))
        });
        match done {
            Ok(((others, changes, skipped), file)) => {
                as_json(200, &json!({ "names": self.shown(&file), "changes": changes, "skipped": skipped, "others": others }))
            }
            Err(error) => failed(&error),
        }
    }

    /// Makes a change. Also returns how many parts of it were not made, since they have been changed by somebody else.
    fn change(&self, file: &mut NamesFile, ask: Ask) -> Result<(Vec<Change>, usize), NamesError> {
        let image = |row: usize| self.table.ids.get(row).cloned().map(Item::Image);
        let place = |file: &mut NamesFile, rows: Vec<usize>, place: Option<Place>| {
            rows.into_iter().filter_map(image).map(|item| file.set(&item, place.clone())).collect::<Result<Vec<_>, _>>()
        };
        let (mut changes, mut skipped) = (Vec::new(), 0);
        match ask {
            Ask::Name { cluster, name } if cluster < self.table.clusters => {
                let place = Some(Place::Group(name)).filter(|place| *place != Place::Group(String::new()));
                changes.push(file.set(&Item::Cluster(cluster), place)?);
            }
            Ask::Name { .. } => {}
            Ask::Rename { old, new } => changes = file.rename(&old, &new, self.table.clusters)?,
            Ask::Move { rows, group } => changes = place(file, rows, Some(Place::Group(group)))?,
            Ask::Reject { rows } => changes = place(file, rows, Some(Place::Rejected))?,
            Ask::Restore { rows } => changes = place(file, rows, None)?,
            Ask::Undo { changes: asked } => {
                for Change { item, before, after } in asked {
                    if file.names().place(&item) == after {
                        changes.push(file.set(&item, before)?);
                    } else {
                        skipped += 1;
                    }
                }
            }
        }
        changes.retain(|change| change.before != change.after);
        Ok((changes, skipped))
    }

    fn picture(&self, of: impl FnOnce(&Thumbs) -> Result<Option<Picture>, ArtifactError>) -> Response {
        match self.thumbs.as_ref().map(of).transpose() {
            Ok(found) => match found.flatten() {
                Some((kind, bytes)) => Response::new(200, kind, bytes).kept(),
                None => Response::text(404, "there is no picture of this image"),
            },
            Err(error) => failed(&error),
        }
    }

    fn near(&self, row: usize) -> Response {
        let found = self.near.as_ref().and_then(|near| Some((near, near.row[row]? as usize)));
        let Some((near, own)) = found else { return refused(404, "no neighbors of this image were mined") };
        let similarity = &near.table.similarity[own * near.table.k..(own + 1) * near.table.k];
        let pairs: Vec<(u32, f32)> = near
            .table
            .neighbors(own)
            .iter()
            .zip(similarity)
            .filter_map(|(&other, &similarity)| Some((near.back[other as usize]?, similarity)))
            .collect();
        as_json(200, &json!(pairs))
    }

    /// At most so many rows, where `place` puts their features.
    fn make_map(&self, most: usize, place: impl Fn(&[f32], usize) -> Vec<[f64; 2]>) -> Response {
        let Some(features) = &self.features else { return refused(404, "there are no features of these images") };
        let read = || -> Result<Value, ArtifactError> {
            let reader = FeatureReader::open(features)?;
            let mut sample = Seed::new(0).branch("view").branch("map").rng().permutation(reader.len());
            sample.truncate(most);
            sample.sort_unstable();
            let rows: Vec<u32> = sample.into_iter().map(|row| row as u32).collect();
            let placed = place(&reader.rows(&rows)?, reader.dim());
            let places = rows_of(reader.ids(), &self.table.ids);
            let points: Vec<(u32, f32, f32)> = rows
                .iter()
                .zip(placed)
                .filter_map(|(&row, [x, y])| Some((places[row as usize]?, x as f32, y as f32)))
                .collect();
            Ok(json!({ "of": reader.len(), "points": points }))
        };
        match read() {
            Ok(map) => as_json(200, &map),
            Err(error) => failed(&error),
        }
    }
}

/// Rows along two principal components.
fn along_components(rows: &[f32], dim: usize) -> Vec<[f64; 2]> {
    let pca = principal(rows, dim, 2);
    let along = |at: usize, axis: usize| if axis < pca.count { pca.scores[at * pca.count + axis] } else { 0.0 };
    (0..rows.len() / dim.max(1)).map(|at| [along(at, 0), along(at, 1)]).collect()
}

fn as_json(status: u16, value: &Value) -> Response {
    Response::new(status, "application/json", value.to_string())
}

fn refused(status: u16, why: &str) -> Response {
    as_json(status, &json!({ "error": why }))
}

fn failed(error: &dyn crate::base::fault::Fault) -> Response {
    let hint = error.hint().map(|hint| format!(" – {hint}")).unwrap_or_default();
    // What the file of names says is for the reader to change; anything else is not.
    let status = if error.code().starts_with("names::") { 409 } else { 500 };
    refused(status, &format!("{}{hint}", chain(error)))
}
