//! Counts of what a reader took from files of others, and of what it left.

/// What a reader took from a file or folder and what it left, for people. A stage says it in a line and its `stage.json` keeps it;
/// `kinset data check` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What was taken and how it was understood: "60 vectors of 16 numbers", "names: column `image_id`", "header: yes".
    pub took: Vec<String>,
    /// What was not read, by kind: "3 × .txt", "12 × .heic (no decoder)".
    pub left: Vec<String>,
    /// What is probably not what the owner wants, each with the setting that changes it.
    pub doubts: Vec<String>,
}

impl Reading {
    /// Adds what was taken.
    pub fn took(&mut self, text: impl Into<String>) -> &mut Self {
        self.took.push(text.into());
        self
    }

    /// Adds what was left.
    pub fn left(&mut self, text: impl Into<String>) -> &mut Self {
        self.left.push(text.into());
        self
    }

    /// Adds a doubt.
    pub fn doubt(&mut self, text: impl Into<String>) -> &mut Self {
        self.doubts.push(text.into());
        self
    }

    /// What was taken and left in one line; doubts are said apart from it.
    pub fn line(&self) -> String {
        let took = self.took.join(", ");
        match (self.took.is_empty(), self.left.is_empty()) {
            (_, true) => took,
            (true, false) => format!("not read: {}", self.left.join(", ")),
            (false, false) => format!("{took}; not read: {}", self.left.join(", ")),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.took.is_empty() && self.left.is_empty() && self.doubts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_one_line() {
        let mut reading = Reading::default();
        assert!(reading.is_empty());
        assert_eq!(reading.line(), "");
        reading.left("3 × .txt");
        assert_eq!(reading.line(), "not read: 3 × .txt");
        reading.took("12 images").took("2 classes").doubt("one class is `images`");
        assert_eq!(reading.line(), "12 images, 2 classes; not read: 3 × .txt");
    }
}
