//! Pictures that a table names and does not hold: files below its own folder.

use std::path::{Component, Path, PathBuf};

/// Where a picture lies that a table names.
///
/// # Errors
/// Why it is not read: the name is an address, or leads out of the table's folder. A table of others must not choose among all files
/// of the machine.
pub(super) fn beside(table: &Path, name: &str) -> Result<PathBuf, String> {
    if name.contains("://") {
        return Err(format!("`{name}` is a URL: download the image, or put its bytes into the table"));
    }
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(format!("`{name}` leads out of the table's folder; only paths below that folder are read"));
    }
    Ok(table.parent().unwrap_or(Path::new("")).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_below_the_table_and_nowhere_else() {
        let table = Path::new("data/train.parquet");
        assert_eq!(beside(table, "cats/1.png"), Ok(PathBuf::from("data/cats/1.png")));
        assert_eq!(beside(Path::new("t.parquet"), "1.png"), Ok(PathBuf::from("1.png")));
        for name in ["/etc/passwd", "../1.png", "a/../../1.png"] {
            assert!(beside(table, name).unwrap_err().contains("leads out"), "{name}");
        }
        assert!(beside(table, "https://example.org/1.png").unwrap_err().contains("is a URL"));
    }
}
