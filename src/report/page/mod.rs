//! # report/page: the HTML page
//!
//! [`html`] puts the page together from its sections: `summary`, `results`, `clusters`, `features`, `odd`, `near`, `selection`, `varied`. [`look`] is a
//! small page about one result. All words from
//! outside pass through `format` or `maud`, which escape by type. Style and script are files beside this one; the page can be read
//! without the script.
//!
//! Not here: drawings (`draw`), what is on the page (`gather`).

mod clusters;
mod features;
mod format;
pub mod html;
pub mod look;
mod near;
mod odd;
mod results;
mod selection;
mod summary;
#[cfg(test)]
mod tests;
mod varied;

pub use html::render;
