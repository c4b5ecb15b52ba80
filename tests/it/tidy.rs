//! The rules of the code base that neither Cargo nor Clippy can check. Reads `src/` as text: comments and strings are blanked out first, and test code too
//! where a rule is about what runs.
//!
//! Every exception stands in a list with its reason, as narrow as it can be; one that no longer applies is a failure as well.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Foreign crates that belong to few of ours: the crate, and the packages that may depend on it.
const BELONGS: &[(&str, &[&str])] = &[
    ("arrow", &["kinset-artifact"]),
    ("parquet", &["kinset-artifact"]),
    ("toml", &["kinset-pipeline"]),
    ("toml_edit", &["kinset-dataset"]),
    ("clap", &["kinset"]),
    ("indicatif", &["kinset"]),
    ("tracing-subscriber", &["kinset"]),
    ("maud", &["kinset-report"]),
    ("ureq", &["kinset-dataset", "kinset-remote"]),
    ("object_store", &["kinset-remote"]),
    ("tokio", &["kinset-remote"]),
    ("candle-nn", &["kinset", "kinset-kernel", "kinset-model", "kinset-methods"]),
];

/// Our crates that know no tensor library, and so build without one.
const TENSORLESS: [&str; 4] = ["kinset-base", "kinset-math", "kinset-store", "kinset-artifact"];

/// Words that may stand in few places: the word, where it may, and why it may nowhere else.
struct Rule {
    words: &'static [&'static str],
    places: &'static [(&'static str, &'static str)],
    why: &'static str,
    /// Whether test code is bound by it too.
    tests_too: bool,
}

const RULES: &[Rule] = &[
    Rule {
        words: &["println!", "eprintln!", "print!", "eprint!", "dbg!", "io::stdout", "io::stderr"],
        places: &[("src/cli/", "this is who talks to people")],
        why: "only `cli` prints: use the context's `note` and `warn`, or return it",
        tests_too: false,
    },
    Rule {
        words: &["std::fs", "File::open", "File::create", "OpenOptions"],
        places: &[
            ("src/base/fs.rs", "this is how everybody else touches files"),
            ("src/store/", "it publishes without replacing, locks and links, which is more than `base::fs` offers"),
            ("src/artifact/parquet/write.rs", "the parquet crate writes to a `std::fs::File`; it is got from `base::fs`"),
            ("src/dataset/list_files.rs", "names `std::fs::Metadata`, which `base::fs` returns"),
            ("src/pipeline/journal.rs", "keeps an append-only event file open; a run that cannot write it goes on without"),
            ("src/pipeline/scalars.rs", "the same for TensorBoard's event files"),
        ],
        why: "files are touched through `base::fs`, whose errors say what was tried and where",
        tests_too: false,
    },
    Rule {
        words: &["process::Command", "Command::new"],
        places: &[("src/base/command.rs", "this is what starts programs")],
        why: "other programs are started through `base::command`, which waits no longer than it was told",
        tests_too: false,
    },
    Rule {
        words: &["HashMap", "HashSet", "RandomState", "DefaultHasher"],
        places: &[],
        why: "their order changes from run to run: BTreeMap, BTreeSet, or a Vec by index",
        tests_too: true,
    },
    Rule {
        words: &[
            "Tensor::rand",
            "Tensor::randn",
            "Tensor::rand_like",
            "Tensor::randn_like",
            ".rand_like(",
            ".randn_like(",
            "Var::rand",
            "Var::randn",
            "ops::dropout",
            "candle_nn::init",
            "candle_nn::Init",
            "VarBuilder",
            "VarMap",
            "thread_rng",
            "rand::rng",
        ],
        places: &[],
        why: "all randomness comes from `base::seed`, which counts and remembers nothing",
        tests_too: true,
    },
    Rule {
        words: &["Instant::now", "SystemTime::now"],
        places: &[("src/base/clock.rs", "this is the clock")],
        why: "`base::clock` is the only clock",
        tests_too: false,
    },
    Rule {
        words: &["todo!", "unimplemented!", "dbg!"],
        places: &[],
        why: "what is not there yet is not in the tree",
        tests_too: true,
    },
    Rule {
        words: &["thread::current().id()", "std::process::exit", "set_var("],
        places: &[("src/kernel/threads.rs", "`main` calls it first: candle's number of threads is set nowhere else")],
        why: "the end of the process and its environment belong to `main`",
        tests_too: false,
    },
];

/// A source file.
struct Source {
    /// `src/crate/file.rs`.
    name: String,
    /// As it is.
    text: String,
    /// Comments and strings blanked, line by line.
    code: String,
    /// Test modules blanked too.
    shipped: String,
}

fn sources() -> Vec<Source> {
    fn descend(folder: &Path, found: &mut Vec<PathBuf>) {
        let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                descend(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    descend(&root.join("src"), &mut paths);
    assert!(paths.len() > 100, "is this the source?");
    let mut sources: Vec<Source> = paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let code = code_of(&text);
            let shipped = without_tests(&code);
            Source { name: path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"), text, code, shipped }
        })
        .collect();
    // A file that its parent declares for tests only is a test, whole.
    let tests: BTreeSet<String> = sources.iter().flat_map(test_files).collect();
    for source in &mut sources {
        if tests.contains(&source.name) {
            source.shipped = source.code.chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        }
    }
    sources
}

/// The files behind `#[cfg(test)] mod name;`.
fn test_files(source: &Source) -> Vec<String> {
    let folder = match source.name.strip_suffix("/mod.rs").or_else(|| source.name.strip_suffix("/lib.rs")) {
        Some(folder) => folder.to_owned(),
        None => source.name.trim_end_matches(".rs").to_owned(),
    };
    let lines: Vec<&str> = source.code.lines().map(str::trim).collect();
    let mut files = Vec::new();
    for pair in lines.windows(2) {
        let name = pair[1].trim_start_matches("pub ").trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        if pair[0] == "#[cfg(test)]"
            && let Some(name) = name.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'))
        {
            files.push(format!("{folder}/{name}.rs"));
        }
    }
    files
}

/// The text with comments and the insides of strings and characters as blanks; lines stay where they are.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let blank = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    let mut at = 0;
    while at < chars.len() {
        let (c, next) = (chars[at], chars.get(at + 1).copied());
        match (c, next) {
            ('/', Some('/')) => {
                while at < chars.len() && chars[at] != '\n' {
                    out.push(' ');
                    at += 1;
                }
            }
            ('/', Some('*')) => {
                let mut depth = 0;
                loop {
                    match (chars.get(at), chars.get(at + 1)) {
                        (Some('/'), Some('*')) => depth += 1,
                        (Some('*'), Some('/')) => depth -= 1,
                        (None, _) => break,
                        _ => {
                            blank(&mut out, chars[at]);
                            at += 1;
                            continue;
                        }
                    }
                    out.push_str("  ");
                    at += 2;
                    if depth == 0 {
                        break;
                    }
                }
            }
            ('r', Some('"' | '#')) if at == 0 || !(chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') => {
                let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
                if chars.get(at + 1 + hashes) != Some(&'"') {
                    out.push(c);
                    at += 1;
                    continue;
                }
                out.push('"');
                at += 2 + hashes;
                while at < chars.len() {
                    if chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes {
                        at += 1 + hashes;
                        break;
                    }
                    blank(&mut out, chars[at]);
                    at += 1;
                }
                out.push('"');
            }
            ('"', _) => {
                out.push('"');
                at += 1;
                while at < chars.len() && chars[at] != '"' {
                    if chars[at] == '\\' {
                        out.push(' ');
                        at += 1;
                    }
                    if at < chars.len() {
                        blank(&mut out, chars[at]);
                        at += 1;
                    }
                }
                out.push('"');
                at += 1;
            }
            // A character, not a lifetime.
            ('\'', Some('\\')) => {
                let end = (at + 3..chars.len()).find(|&i| chars[i] == '\'').unwrap_or(at + 2);
                out.extend(std::iter::repeat_n(' ', end + 1 - at));
                at = end + 1;
            }
            ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => {
                out.push_str("   ");
                at += 3;
            }
            _ => {
                out.push(c);
                at += 1;
            }
        }
    }
    out
}

/// The code without what stands behind `#[cfg(test)]` or `#[test]`.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..start]);
        let after = &rest[start..];
        // The item ends with its block, or with a semicolon before one opens.
        let mut depth = 0;
        let mut end = after.len();
        for (index, c) in after.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        end = index + 1;
                        break;
                    }
                }
                ';' if depth == 0 => {
                    end = index + 1;
                    break;
                }
                _ => {}
            }
        }
        out.extend(after[..end].chars().map(|c| if c == '\n' { c } else { ' ' }));
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// Fails with all complaints at once.
#[track_caller]
fn assert_none(complaints: &[String], rule: &str) {
    assert!(complaints.is_empty(), "{rule}\n  {}", complaints.join("\n  "));
}

/// The packages of the workspace and what each builds with.
fn manifests() -> Vec<(String, toml::Table)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let below = fs::read_dir(root.join("src")).unwrap().map(|entry| entry.unwrap().path());
    let folders = std::iter::once(root.to_path_buf()).chain(below);
    let texts = folders.filter_map(|folder| fs::read_to_string(folder.join("Cargo.toml")).ok());
    let tables = texts.map(|text| toml::from_str::<toml::Table>(&text).unwrap());
    let found: Vec<_> = tables.map(|table| (table["package"]["name"].as_str().unwrap().to_owned(), table)).collect();
    assert!(found.len() > 10, "are these all packages?");
    found
}

/// Cargo keeps our crates in order, since it knows no circles; this keeps heavy foreign crates to few of them.
#[test]
fn foreign_crates_are_named_where_they_belong() {
    let mut complaints = Vec::new();
    for (package, manifest) in manifests() {
        let builds_with = manifest["dependencies"].as_table().unwrap();
        for (foreign, ours) in BELONGS {
            if builds_with.contains_key(*foreign) && !ours.contains(&package.as_str()) {
                complaints.push(format!("{package} builds with {foreign}"));
            }
        }
        if TENSORLESS.contains(&package.as_str()) {
            let tensors = builds_with.keys().filter(|name| name.starts_with("candle") || *name == "kinset-kernel");
            complaints.extend(tensors.map(|name| format!("{package} builds with {name}")));
        }
        if manifest["lints"].get("workspace").and_then(toml::Value::as_bool) != Some(true) {
            complaints.push(format!("{package} goes without the lints of the workspace"));
        }
    }
    assert_none(&complaints, "a heavy crate is named in few places");
}

#[test]
fn unsafe_code_is_for_kernel_and_gpu_alone() {
    const MAY: [&str; 2] = ["src/gpu/lib.rs", "src/kernel/lib.rs"];
    let roots = sources().into_iter().filter(|s| s.name.ends_with("/lib.rs") && !MAY.contains(&s.name.as_str()));
    let lifted: Vec<String> = roots.filter(|s| !s.text.contains("#![forbid(unsafe_code)]")).map(|s| s.name).collect();
    assert_none(&lifted, "a crate begins with `#![forbid(unsafe_code)]`");
}

#[test]
fn a_method_looks_at_no_other_method_unless_its_paper_does() {
    /// Methods that build on another: the method, the other, the paper that says so.
    const BUILDS_ON: &[(&str, &str, &str)] = &[(
        "nnm",
        "scan",
        "Dang et al., CVPR 2021: SCAN's clustering stage with more neighbors; its validation loss and parts",
    )];
    let (mut complaints, mut used) = (Vec::new(), BTreeSet::new());
    for source in sources().iter().filter(|source| source.name.starts_with("src/methods/") && !source.name.ends_with("/lib.rs"))
    {
        // A method is a file, or a folder of files.
        let own = source.name.trim_start_matches("src/methods/").split(['/', '.']).next().unwrap_or_default();
        for (number, line) in source.shipped.lines().enumerate() {
            for path in ["crate::", "super::"] {
                let Some(start) = line.find(path) else { continue };
                let other = word(&line[start + path.len()..]);
                let below = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/methods");
                let there = below.join(format!("{other}.rs")).is_file() || below.join(other).is_dir();
                if !there || other == own {
                    continue;
                }
                match BUILDS_ON.iter().position(|(method, base, _)| *method == own && *base == other) {
                    Some(index) => drop(used.insert(index)),
                    None => complaints.push(format!("{}:{}: `{other}`", source.name, number + 1)),
                }
            }
        }
    }
    for (index, (method, base, _)) in BUILDS_ON.iter().enumerate() {
        if !used.contains(&index) {
            complaints.push(format!("`{method}` does not look at `{base}` any more"));
        }
    }
    assert_none(&complaints, "a method imports another only if its paper builds on it (then list it here, with the paper)");
}

#[test]
fn every_file_begins_with_what_is_in_it() {
    let complaints: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! ") || source.text.lines().next().is_some_and(|line| line.len() < 12))
        .map(|source| source.name.clone())
        .collect();
    assert_none(&complaints, "a file begins with `//!` and what is in it");
}

#[test]
fn lib_and_mod_files_hold_no_logic() {
    /// Files with something more in them: why.
    const MORE: &[(&str, &str)] = &[
        ("src/artifact/lib.rs", "the few types that every artifact shares; they are too few for a file of their own"),
        ("src/cli/mod.rs", "the way from a command to its file is all that this file holds"),
    ];
    let (mut complaints, mut used) = (Vec::new(), BTreeSet::new());
    for source in sources().iter().filter(|source| source.name.ends_with("/mod.rs") || source.name.ends_with("/lib.rs")) {
        for (number, line) in source.shipped.lines().enumerate() {
            if line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == "fn") {
                match MORE.iter().position(|(file, _)| *file == source.name) {
                    Some(index) => drop(used.insert(index)),
                    None => complaints.push(format!("{}:{}: {}", source.name, number + 1, line.trim())),
                }
            }
        }
    }
    for (index, (file, _)) in MORE.iter().enumerate() {
        if !used.contains(&index) {
            complaints.push(format!("the exception for {file} is not needed any more"));
        }
    }
    assert_none(&complaints, "`lib.rs` and `mod.rs` hold modules and re-exports");
}

#[test]
fn what_belongs_to_one_place_stands_nowhere_else() {
    let mut complaints = Vec::new();
    let sources = sources();
    for rule in RULES {
        let mut used = BTreeSet::new();
        for source in &sources {
            let text = if rule.tests_too { &source.code } else { &source.shipped };
            for (number, line) in text.lines().enumerate() {
                for found in rule.words.iter().filter(|found| stands(line, found)) {
                    match rule.places.iter().position(|(place, _)| source.name.starts_with(place)) {
                        Some(index) => drop(used.insert(index)),
                        None => complaints.push(format!("{}:{}: `{found}`: {}", source.name, number + 1, rule.why)),
                    }
                }
            }
        }
        for (index, (place, _)) in rule.places.iter().enumerate() {
            if !used.contains(&index) {
                complaints.push(format!("the exception of {place} from \"{}\" is not needed any more", rule.why));
            }
        }
    }
    assert_none(&complaints, "out of place");
}

/// True if the word stands in the line, not as the tail of a longer one.
fn stands(line: &str, found: &str) -> bool {
    let bound = found.starts_with(|c: char| c.is_alphanumeric());
    line.match_indices(found).any(|(start, _)| {
        let before = &line[..start];
        // `crate::artifact::parquet::…` is our own module, `print!` no part of `println!` or `sprint!`.
        let own = ["crate::", "super::", "self::", "artifact::"].iter().any(|path| before.ends_with(path));
        let longer = bound && before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        !own && !longer
    })
}

#[test]
fn no_path_of_a_machine_and_no_note_to_self_is_in_the_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut complaints = Vec::new();
    // Written apart, so that this file does not find itself.
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X "), concat!("HA", "CK")];
    let places =
        [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/"), concat!("C:", "\\")];
    let mut folders = vec![root.join("src"), root.join("tests"), root.join("pipelines")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = fs::read_to_string(&path) else { continue };
            for (number, line) in text.lines().enumerate() {
                for found in notes.iter().chain(&places).filter(|found| line.contains(**found)) {
                    complaints.push(format!("{}:{}: `{found}`", path.display(), number + 1));
                }
            }
        }
    }
    assert_none(&complaints, "it is done or it is an issue; and no machine is known here");
}

#[test]
fn unsafe_code_is_allowed_where_it_is_and_argued_block_by_block() {
    let mut complaints = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.code.lines().collect();
        let texts: Vec<&str> = source.text.lines().collect();
        let blocks: Vec<usize> =
            lines.iter().enumerate().filter(|(_, line)| stands(line, "unsafe {")).map(|(n, _)| n).collect();
        if !blocks.is_empty() && !source.code.contains("expect(unsafe_code") {
            complaints.push(format!("{}: no `#[expect(unsafe_code, reason = …)]`", source.name));
        }
        for block in blocks {
            let near = &texts[block.saturating_sub(6)..(block + 2).min(texts.len())];
            if !near.iter().any(|line| line.contains("SAFETY")) {
                complaints.push(format!("{}:{}: no SAFETY", source.name, block + 1));
            }
        }
    }
    assert_none(&complaints, "an `unsafe` block says why it is sound");
}

#[test]
fn the_reader_of_sources_sees_code_and_nothing_else() {
    let text =
        "let a = \"unsafe { /* \"; // crate::cli\n/* crate::cli /* x */ */ let b = 'x'; let c: &'a str = r#\"toml::\"#;\n";
    let code = code_of(text);
    assert_eq!(code.lines().count(), text.lines().count());
    for hidden in ["unsafe", "crate::cli", "toml"] {
        assert!(!code.contains(hidden), "{code}");
    }
    assert!(code.contains("let a =") && code.contains("let b =") && code.contains("&'a str"), "{code}");
    assert_eq!(without_tests("a;\n#[cfg(test)]\nmod tests {\n  x {}\n}\nb;").replace(['\n', ' '], ""), "a;b;");
    assert!(stands("use toml::de", "toml::") && !stands("atoml::de", "toml::"));
    assert!(!stands("use crate::artifact::parquet::file", "parquet::file") && stands("use parquet::file", "parquet::file"));
}
