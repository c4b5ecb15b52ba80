//! Rows of duplicates and outliers for `kinset export`: what there is to act on, in the order in which a person would.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::common::{Failure, Held, known};
use super::near_images::Near;
use super::pictures::Pictures;
use crate::artifact::Artifact;
use crate::artifact::duplicates::{DuplicateTable, Duplicates};
use crate::artifact::near_duplicates::NearDuplicates;
use crate::artifact::outliers::OutlierTable;
use crate::pipeline::state::Outlook;
use crate::report::lines::{Form, table_lines};

/// The lines of such a result, with their number: of duplicates and near-duplicates the images in groups, group by group, what is kept first; of outliers all
/// images, the most unusual first.
pub(super) fn lines(held: &Held, outlook: &Outlook<'_>, form: Form) -> Result<(String, usize), Failure> {
    if held.kind == NearDuplicates::KIND {
        return Ok(Near::of(&held.typed(), held.node, (outlook.spec, outlook.store, &known(outlook)))?.groups(form));
    }
    let states = outlook.states(&BTreeSet::new());
    let paths_of = |ids: &[String]| {
        let pictures = Pictures::behind(outlook, &states, held.node, ids)?;
        Ok::<_, Failure>(pictures.map(|pictures| pictures.paths()).transpose()?.unwrap_or_default())
    };
    let (names, rows): (Vec<&str>, Vec<Vec<Value>>) = if held.kind == Duplicates::KIND {
        let table = DuplicateTable::load(&held.typed())?;
        let paths = paths_of(&table.ids)?;
        let mut rows = Vec::new();
        for (number, group) in table.groups().iter().enumerate() {
            rows.extend(group.iter().map(|&row| {
                let (at, id) = (row as usize, &table.ids[row as usize]);
                let kept = table.representative[at] == row;
                vec![
                    json!(number),
                    json!(kept),
                    path(&paths, at),
                    json!(id),
                    json!(row),
                    json!(table.exact[at]),
                    float(table.similarity[at]),
                ]
            }));
        }
        (vec!["group", "kept", "path", "id", "row", "exact", "similarity"], rows)
    } else {
        let table = OutlierTable::load(&held.typed())?;
        let paths = paths_of(&table.ids)?;
        let rows = table.order().into_iter().zip(1..).map(|(row, rank)| {
            let (at, id) = (row as usize, &table.ids[row as usize]);
            let mut cells = vec![json!(rank), path(&paths, at), json!(id), json!(row), float(table.score[at])];
            if let Some(said) = &table.said {
                cells.extend([float(said.confidence[at]), json!(said.cluster[at])]);
            }
            cells
        });
        let mut names = vec!["rank", "path", "id", "row", "score"];
        if table.said.is_some() {
            names.extend(["confidence", "cluster"]);
        }
        (names, rows.collect())
    };
    Ok((table_lines(form, &names, &rows), rows.len()))
}

/// The path of a row's picture, as far as it is known.
fn path(paths: &[String], row: usize) -> Value {
    json!(paths.get(row).map_or("", String::as_str))
}

/// With the digits that single precision has.
fn float(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}
