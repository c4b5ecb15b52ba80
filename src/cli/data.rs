//! `kinset data`: which data sets there are, and whether one is sound.

use serde_json::json;

use super::args::DataCommand;
use super::common::{Answer, places};
use super::terminal;
use crate::base::hint::Exit;
use crate::base::unit;
use crate::dataset::record::Labels;
use crate::dataset::{self, Source, registry};
use crate::store::digest::Digest;

pub(super) fn run(command: &DataCommand) -> Answer {
    match command {
        DataCommand::List { places: args, json } => {
            let places = places(args, None);
            let (mut rows, mut table) = (Vec::new(), terminal::table(&["name", "here", "splits", "what it is"], &[]));
            for entry in registry::entries() {
                let here = !entry.needs_root() && registry::locate(&Source::named(entry.name), &places).is_ok();
                let splits: Vec<&str> = entry.splits.iter().map(|split| split.name).collect();
                let word = match (entry.needs_root(), here) {
                    (true, _) => "yours",
                    (false, true) => "yes",
                    (false, false) => "no",
                };
                table.add_row([entry.name, word, &splits.join(", "), entry.title]);
                rows.push(json!({
                    "name": entry.name, "here": here, "needs_root": entry.needs_root(), "splits": splits,
                    "title": entry.title, "license": entry.license, "advice": entry.advice,
                }));
            }
            if *json {
                terminal::print_json(&rows)?;
            } else {
                terminal::print(&terminal::text(&table))?;
                terminal::say(&format!("\nlooked for below `{}`; `yours`: say where with `root`", places.data().display()));
            }
            Ok(Exit::Done)
        }
        DataCommand::Check { dataset, split, root, places: args, json } => {
            let mut source = Source::named(dataset);
            if let Some(split) = split {
                source = source.split(split);
            }
            if let Some(root) = root {
                source = source.root(root);
            }
            let report = dataset::check(&source, &places(args, None), &mut |file| Digest::of_file(&file.path))?;
            let (names, labels) = match &report.labels {
                Labels::Named(names) => (names.clone(), format!("{} classes", names.len())),
                Labels::Numbered => (Vec::new(), format!("{} classes without names", report.per_class.len())),
                Labels::Absent { why } => (Vec::new(), format!("none: {why}")),
            };
            if *json {
                terminal::print_json(&json!({
                    "dataset": dataset, "images": report.images, "gray": report.gray, "smallest": report.smallest,
                    "largest": report.largest, "classes": names, "per_class": report.per_class,
                    "unlabeled": report.unlabeled, "skipped": report.skipped.count,
                    "files": report.files, "ignored": report.ignored.endings,
                }))?;
                return Ok(Exit::Done);
            }
            let (w, h) = report.smallest;
            let size = if report.smallest == report.largest {
                format!("{w} × {h}")
            } else {
                format!("{w} × {h} to {} × {}", report.largest.0, report.largest.1)
            };
            let bytes: u64 = report.files.iter().map(|(_, bytes)| bytes).sum();
            let mut text = format!(
                "{dataset}: sound\n  images  {} ({} gray), {size} pixels\n  files   {}, {}\n  labels  {labels}\n",
                unit::count(report.images as u64),
                unit::count(report.gray as u64),
                unit::count(report.files.len() as u64),
                unit::bytes(bytes)
            );
            for (class, count) in report.per_class.iter().enumerate() {
                let name = names.get(class).cloned().unwrap_or_else(|| class.to_string());
                text.push_str(&format!("          {:>8}  {name}\n", unit::count(*count as u64)));
            }
            if report.unlabeled > 0 {
                text.push_str(&format!("          {:>8}  without a label\n", unit::count(report.unlabeled as u64)));
            }
            if report.ignored.count() > 0 {
                let endings: Vec<String> = report.ignored.endings.iter().map(|(e, n)| format!("{n} × {e}")).collect();
                text.push_str(&format!("  not read: {}\n", endings.join(", ")));
            }
            for broken in &report.skipped.first {
                text.push_str(&format!("  left out: `{}` ({})\n", broken.name, broken.reason));
            }
            terminal::print(&text)?;
            Ok(Exit::Done)
        }
    }
}
