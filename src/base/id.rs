//! Names of images that never shift: taken from the content, not from the place in a folder.

use std::collections::BTreeMap;

/// Hexadecimal digits of a content name: 64 bits, so that even ImageNet-sized sets collide with a chance below 1e-7 – and a
/// collision only earns a suffix, never a lost image.
const DIGITS: usize = 16;

/// Hands out one stable name per image: the digest of its content, with `-1`, `-2` … for equal images in the order they come.
#[derive(Debug, Default)]
pub struct Ids {
    seen: BTreeMap<String, u32>,
}

impl Ids {
    /// The name of the next image. `content` is what makes two images the same: the file's own bytes, or shape and pixels.
    pub fn next(&mut self, content: &[u8]) -> String {
        self.named(blake3::hash(content).to_hex().to_string())
    }

    /// As [`Ids::next`], where the digest of the content is known: its hexadecimal digits.
    pub fn named(&mut self, mut name: String) -> String {
        name.truncate(DIGITS);
        let count = self.seen.entry(name.clone()).or_insert(0);
        let twin = *count;
        *count += 1;
        if twin == 0 { name } else { format!("{name}-{twin}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_images_are_told_apart_and_others_keep_their_names() {
        let mut ids = Ids::default();
        let (a, b, a1, a2) = (ids.next(b"a"), ids.next(b"b"), ids.next(b"a"), ids.next(b"a"));
        assert_eq!(a.len(), DIGITS);
        assert_ne!(a, b);
        assert_eq!((a1, a2), (format!("{a}-1"), format!("{a}-2")));
        assert_eq!(Ids::default().next(b"b"), b, "the name does not depend on what came before");
    }
}
