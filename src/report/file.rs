//! A page in its file, written only if anything changed.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::album::Album;
use super::gather::Glance;
use super::gather::page::Page;
use super::page::html;
use kinset_base::fs;
use kinset_base::output::{self, OutputError};

/// Where the report of a pipeline lies.
pub fn place(artifacts: &Path, pipeline: &str) -> PathBuf {
    artifacts.join(pipeline).join("report.html")
}

/// Bytes of a page in which it says what it was made from.
const BEGINNING: u64 = 4096;

/// True if the file is a page that was made from the same.
fn is_current(path: &Path, fingerprint: &str) -> bool {
    let Ok(file) = fs::open(path) else { return false };
    let mut beginning = Vec::new();
    let read = file.take(BEGINNING).read_to_end(&mut beginning);
    read.is_ok() && html::is_of(&String::from_utf8_lossy(&beginning), fingerprint)
}

/// Makes the page and writes it; returns its size in bytes.
///
/// # Errors
/// If the file cannot be written. What cannot be read is said on the page.
pub fn write(glance: &Glance<'_>, path: &Path) -> Result<usize, OutputError> {
    draw(glance, &glance.gather(), path)
}

/// As [`write()`], unless the file is a page that was made from the same.
///
/// # Errors
/// As for [`write()`].
pub fn refresh(glance: &Glance<'_>, path: &Path) -> Result<(), OutputError> {
    if glance.fingerprint().is_some_and(|fingerprint| is_current(path, fingerprint)) {
        return Ok(());
    }
    let page = glance.gather();
    if is_current(path, &page.fingerprint) {
        return Ok(());
    }
    draw(glance, &page, path).map(|_| ())
}

fn draw(glance: &Glance<'_>, page: &Page, path: &Path) -> Result<usize, OutputError> {
    let album = Album::of(page, glance.images().as_ref(), |node| glance.images_of(node));
    let text = html::render(page, &album);
    output::write(path, text.as_bytes())?;
    Ok(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_current_only_if_it_says_so_at_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = place(dir.path(), "p");
        assert!(!is_current(&path, "f"), "there is none");
        fs::create_folders(&dir.path().join("p")).unwrap();
        fs::write_atomic(&path, b"<!DOCTYPE html><meta name=\"kinset-report\" content=\"f\">").unwrap();
        assert!(is_current(&path, "f") && !is_current(&path, "g"));
        let far = [vec![b' '; 5000], b"<meta name=\"kinset-report\" content=\"f\">".to_vec()].concat();
        fs::write_atomic(&path, &far).unwrap();
        assert!(!is_current(&path, "f"));
    }
}
