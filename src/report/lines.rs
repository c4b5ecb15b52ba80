//! Assignments as lines that any tool reads: CSV (RFC 4180, with a header) and JSON lines.

use serde_json::{Value, json};

/// Where an image went.
#[derive(Clone, Debug, PartialEq)]
pub struct Line<'a> {
    /// The image's name, made from its content.
    pub id: &'a str,
    pub row: u64,
    /// Its file, if it had one to itself.
    pub path: &'a str,
    /// Its cluster; −1 where it belongs to none.
    pub cluster: i32,
    /// The probability of that cluster.
    pub confidence: f32,
    /// Entropy of all probabilities, nats.
    pub entropy: f32,
    /// The runner-up; −1 where there is none.
    pub second_cluster: i32,
    /// The group that a person put it or its cluster in, where clusters have names; empty for a rejected image.
    pub group: Option<&'a str>,
}

/// A form of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Csv,
    JsonLines,
}

impl Form {
    /// `named` says whether lines have groups.
    pub fn head(self, named: bool) -> &'static str {
        match self {
            Self::Csv if named => "id,row,path,cluster,confidence,entropy,second_cluster,group\n",
            Self::Csv => "id,row,path,cluster,confidence,entropy,second_cluster\n",
            Self::JsonLines => "",
        }
    }

    /// A line, with its end.
    pub fn line(self, line: &Line<'_>) -> String {
        let Line { id, row, path, cluster, confidence, entropy, second_cluster, group } = line;
        match self {
            Self::Csv => {
                let group = group.map(|group| format!(",{}", field(group))).unwrap_or_default();
                format!("{},{row},{},{cluster},{confidence},{entropy},{second_cluster}{group}\n", field(id), field(path))
            }
            Self::JsonLines => {
                let mut value = json!({
                    "id": id, "row": row, "path": path, "cluster": cluster, "confidence": confidence, "entropy": entropy,
                    "second_cluster": second_cluster,
                });
                if let Some(group) = group {
                    value["group"] = json!(group);
                }
                format!("{value}\n")
            }
        }
    }
}

/// A table as lines; values are texts, numbers, true and false.
pub fn table_lines(form: Form, names: &[&str], rows: &[Vec<Value>]) -> String {
    let mut text = String::new();
    if form == Form::Csv {
        text.push_str(&format!("{}\n", names.join(",")));
    }
    for row in rows {
        let line = match form {
            Form::Csv => {
                let cells = row.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), field));
                cells.collect::<Vec<_>>().join(",")
            }
            Form::JsonLines => {
                Value::Object(names.iter().map(|&name| name.to_owned()).zip(row.iter().cloned()).collect()).to_string()
            }
        };
        text.push_str(&format!("{line}\n"));
    }
    text
}

/// A text as a field: in quotes where it must be.
pub fn field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ') {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_commas_quotes_and_line_ends_stay_one_field() {
        let line = Line {
            id: "ab",
            row: 3,
            path: "a, \"b\"\n.png",
            cluster: 1,
            confidence: 0.5,
            entropy: 0.25,
            second_cluster: -1,
            group: None,
        };
        assert_eq!(Form::Csv.line(&line), "ab,3,\"a, \"\"b\"\"\n.png\",1,0.5,0.25,-1\n");
        assert_eq!(Form::Csv.head(false).matches(',').count(), 6);
        let named = Line { group: Some("a, b"), ..line.clone() };
        assert!(Form::Csv.line(&named).ends_with(",-1,\"a, b\"\n") && Form::Csv.head(true).ends_with(",group\n"));
        assert!(Form::JsonLines.line(&named).contains("\"group\":\"a, b\"") && !Form::JsonLines.line(&line).contains("group"));
        let json: Value = serde_json::from_str(&Form::JsonLines.line(&line)).unwrap();
        assert_eq!((json["path"].as_str(), json["cluster"].as_i64()), (Some("a, \"b\"\n.png"), Some(1)));
        assert_eq!(Form::JsonLines.line(&line).matches('\n').count(), 1);
        assert_eq!([field("plain"), field(" x"), field("")], ["plain", "\" x\"", ""]);
    }
}
