//! The assembly of a page from a pipeline and its store.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use super::assignments::Looked;
use super::inputs::{Results, Subject};
use super::journal::Journal;
use super::near::near_sets;
use super::page::{Map, Page, Part, Selected, Sight, StageRow, Standing, Warning};
use super::samples::{Elsewhere, taken};
use super::{calibration, clusters, confusion, map, neighborhoods, odd, score_tables, stages, trainings, varied, warnings};
use crate::scores;
use kinset_artifact::Stored;
use kinset_artifact::assignments::Assignments;
use kinset_artifact::features::Features;
use kinset_artifact::images::Images;
use kinset_artifact::neighbors::Neighbors;
use kinset_artifact::selection::{Selection, SelectionTable};
use kinset_base::fault::chain;
use kinset_pipeline::journal::runs_folder;
use kinset_pipeline::state::{Known, Outlook};
use kinset_store::digest::Digest;

/// A look at a pipeline that has cost next to nothing: how its stages stand.
pub struct Glance<'a> {
    outlook: &'a Outlook<'a>,
    rows: Vec<StageRow>,
    known: Known,
    asked: Option<String>,
    elsewhere: Elsewhere<'a>,
    fingerprint: String,
    damaged: RefCell<BTreeSet<String>>,
}

impl<'a> Glance<'a> {
    /// Looks at every stage. `asked` names the assignments to show, or the stage of their classifier.
    pub fn at(outlook: &'a Outlook<'a>, asked: Option<&str>) -> Self {
        let (rows, known) = stages::rows(outlook);
        Self::of(outlook, rows, known, asked)
    }

    /// Looks at what a run has left. `known` are its results; only if some are missing, every stage is looked at.
    pub fn after(outlook: &'a Outlook<'a>, known: &Known) -> Self {
        match stages::rows_after(outlook, known) {
            Some(rows) => Self::of(outlook, rows, known.clone(), None),
            None => Self::at(outlook, None),
        }
    }

    fn of(outlook: &'a Outlook<'a>, rows: Vec<StageRow>, known: Known, asked: Option<&str>) -> Self {
        let runs = runs_folder(outlook.store.artifacts(), &outlook.spec.name);
        let fingerprint = stages::fingerprint(outlook, &rows, &runs, asked);
        Self {
            outlook,
            rows,
            known,
            asked: asked.map(str::to_owned),
            elsewhere: Elsewhere::default(),
            fingerprint,
            damaged: RefCell::default(),
        }
    }

    /// With pictures of features that were brought along.
    #[must_use]
    pub fn with_pictures(self, elsewhere: Elsewhere<'a>) -> Self {
        Self { elsewhere, ..self }
    }

    /// Changes when anything changes that a report shows. None if that is not known before the page is gathered, since it shows pictures
    /// that are no results.
    pub fn fingerprint(&self) -> Option<&str> {
        self.elsewhere.is_empty().then_some(&*self.fingerprint)
    }

    /// The results that were left out so far because their bytes are not what was written.
    pub fn damaged(&self) -> Vec<String> {
        self.damaged.borrow().iter().cloned().collect()
    }

    /// True if there is nothing to show: no result, no run.
    pub fn is_blank(&self) -> bool {
        let journal = Journal::last(&runs_folder(self.outlook.store.artifacts(), &self.outlook.spec.name));
        stages::standing(&self.rows, journal.as_ref()) == Standing::Never
    }

    /// The images that a report shows, if they are there.
    pub fn images(&self) -> Option<Stored<Images>> {
        let results = self.results();
        results.get(Subject::of(&results, self.asked.as_deref()).images?)
    }

    /// The images that a node of the pipeline gave, if they are there.
    pub fn images_of(&self, node: usize) -> Option<Stored<Images>> {
        self.results().get(node)
    }

    /// The node whose assignments a report shows, whether it has a result or not.
    pub fn subject(&self) -> Option<usize> {
        Subject::of(&self.results(), self.asked.as_deref()).assignments
    }

    /// What belongs to the assignments that a report shows, as far as it is there.
    pub fn sights(&self) -> Sights {
        let results = self.results();
        let subject = Subject::of(&results, self.asked.as_deref());
        Sights {
            assignments: subject.assignments.and_then(|node| results.get(node)),
            images: subject.images.and_then(|node| results.get(node)),
            features: subject.features.and_then(|node| results.get(node)),
            neighbors: subject.neighbors.and_then(|node| results.get(node)),
        }
    }

    /// A line for each combination of what varies, each thing that was measured and each seed, as CSV and as JSON; nothing where nothing
    /// varies or has a result.
    pub fn varied(&self) -> Option<(String, serde_json::Value)> {
        let scored = scores::collect(self.outlook.spec, self.outlook.store, &self.known).unwrap_or_default();
        let singles = varied::singles(&self.results(), &scored);
        (!singles.is_empty()).then(|| (varied::csv(&singles), varied::json(&singles)))
    }

    fn results(&self) -> Results<'_> {
        Results { spec: self.outlook.spec, store: self.outlook.store, known: &self.known, damaged: &self.damaged }
    }

    /// Reads everything that is on the page. What cannot be read is said in its place.
    pub fn gather(&self) -> Page {
        self.gather_with(map::map)
    }

    /// The same without the map, which costs more than all the rest: for single figures.
    pub fn gather_without_map(&self) -> Page {
        self.gather_with(|_, _, _| Part::absent("The map was not requested."))
    }

    fn gather_with(&self, map: impl FnOnce(&Results<'_>, &Subject, &Looked) -> Part<Map>) -> Page {
        let (spec, results) = (self.outlook.spec, self.results());
        let runs = runs_folder(self.outlook.store.artifacts(), &spec.name);
        let journal = Journal::last(&runs);
        let mut rows = self.rows.clone();
        stages::tell(&mut rows, journal.as_ref());
        let standing = stages::standing(&rows, journal.as_ref());

        let subject = Subject::of(&results, self.asked.as_deref());
        let mut looked = Looked::load(self.outlook, &results, &subject);
        let duplicates = odd::copies(&results, &subject, &mut looked);
        let outliers = odd::unusual(&results, &subject, &mut looked);
        let scored = scores::collect(spec, self.outlook.store, &self.known);
        let unread = scored.as_ref().err().map(|error| chain(error));
        let scored = scored.unwrap_or_default();
        let boards = score_tables::boards(&results, &scored);
        let main = subject.classifier.map(|node| spec.nodes[node].variant());
        let confusions = confusion::confusions(&results, &scored, main);
        let clusters = clusters::clusters(&results, &subject, &looked);
        let calibration = calibration::calibration(&results, &subject, &looked);
        let neighbors = neighborhoods::neighborhoods(&results, &subject, &looked);

        let mut warned: Vec<Warning> = warnings::of_standing(&standing).into_iter().collect();
        warned.extend(clusters.shown().into_iter().flat_map(warnings::of_clusters));
        warned.extend(warnings::of_scores(&boards));
        warned.extend(calibration.shown().and_then(warnings::of_calibration));
        let ids = looked.assigned.as_ref().map_or(&[][..], |assigned| assigned.table.ids.as_slice());
        warned.extend(warnings::of_images(ids, neighbors.shown()));
        warned
            .extend(looked.unnamed.iter().map(|text| Warning { about: "names", text: format!("Names are not shown: {text}") }));
        let said = journal.iter().flat_map(|journal| &journal.warnings);
        warned.extend(said.map(|(stage, text)| Warning { about: "stage", text: format!("`{stage}`: {text}") }));
        let list = |trainings: Vec<super::page::Training>| match trainings.as_slice() {
            [] => Part::absent("No stage of this pipeline has trained anything yet."),
            _ => Part::Shown(trainings),
        };
        let (map, selections) = (map(&results, &subject, &looked), selections(&results, &self.elsewhere));
        let curves = list(trainings::trainings(&results, &rows, &runs));
        let counts = trainings::counts(&results);
        // Pictures are read after this; whether they have changed is told here.
        subject.images.and_then(|node| results.get::<Images>(node));
        let damaged = self.damaged();
        let told = |fault: &&String| !damaged.contains(fault);
        let faults = damaged.iter().chain(looked.faults.iter().chain(&unread).filter(told));
        warned.extend(faults.map(|fault| Warning { about: "report", text: format!("A result cannot be read: {fault}") }));

        let labels = "No stage has measured anything: scores need images with labels and a stage of the kind `evaluate`.";
        let judges = spec.nodes.iter().any(|node| node.gives("scores"));
        let no_scores = if judges { "The stages that measure have no result yet." } else { labels };
        let page = Page {
            pipeline: spec.name.clone(),
            file: spec.path.display().to_string(),
            profile: spec.profile.clone(),
            fingerprint: self.fingerprint.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: spec.seed,
            seeds: spec.repeat.as_ref().map(|repeat| repeat.seeds.clone()).unwrap_or_default(),
            device: spec.device.clone(),
            standing,
            run: journal.as_ref().map(stages::last_run),
            curves,
            stages: rows,
            wires: stages::wires(spec),
            warnings: warned,
            scores: if boards.is_empty() { Part::absent(no_scores) } else { Part::Shown(boards) },
            confusions: if confusions.is_empty() { Part::absent(no_scores) } else { Part::Shown(confusions) },
            clusters,
            calibration,
            neighbors,
            map,
            duplicates,
            near: near_sets(&results, &self.elsewhere),
            outliers,
            selections,
            counts,
            varied: varied::sweeps(&varied::singles(&results, &scored)),
        };
        let fingerprint = with_files(page.fingerprint.clone(), page.sights());
        Page { fingerprint, ..page }
    }
}

/// The results that are looked at together.
#[derive(Debug)]
pub struct Sights {
    pub assignments: Option<Stored<Assignments>>,
    pub images: Option<Stored<Images>>,
    pub features: Option<Stored<Features>>,
    pub neighbors: Option<Stored<Neighbors>>,
}

/// A fingerprint that also changes with the bytes of files that are shown and are no results.
fn with_files<'a>(fingerprint: String, sights: impl Iterator<Item = &'a Sight>) -> String {
    let files: BTreeSet<&Path> =
        sights.filter_map(|sight| if let Sight::File(path) = sight { Some(path.as_path()) } else { None }).collect();
    if files.is_empty() {
        return fingerprint;
    }
    let of =
        |path: &&Path| format!("{} {}", path.display(), Digest::of_file(path).map(|digest| digest.hex()).unwrap_or_default());
    let all: Vec<String> = std::iter::once(fingerprint).chain(files.iter().map(of)).collect();
    Digest::of(all.join("\n").as_bytes()).hex()
}

/// What curation stages took. Nothing of one whose tables cannot be read.
fn selections(results: &Results<'_>, elsewhere: &Elsewhere<'_>) -> Vec<Selected> {
    let load = |node: usize| {
        let table = SelectionTable::load(&results.get::<Selection>(node)?).ok()?;
        let taken = taken(results, node, &table, elsewhere);
        Some(Selected { stage: results.name(node).to_owned(), report: table.report, taken })
    };
    (0..results.spec.nodes.len()).filter_map(load).collect()
}
