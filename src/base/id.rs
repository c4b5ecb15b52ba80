//! Stable names of images: taken from the content, not from the place in a folder.

use std::collections::BTreeMap;

/// Hexadecimal digits of a content name: 64 bits, so that even ImageNet-sized sets collide with a chance below 1e-7 – and a
/// collision only earns a suffix, never a lost image.
const DIGITS: usize = 16;

/// Hands out one stable name per image: the digest of its content, with `-1`, `-2` … for equal images in the order they come.
#[derive(Debug, Default)]
pub struct Ids {
    /// How often each content was named, by the first 64 bits of its digest.
    seen: BTreeMap<u64, u32>,
}

impl Ids {
    /// The name of the next image. `content` is what makes two images the same: the file's own bytes, or shape and pixels.
    pub fn next(&mut self, content: &[u8]) -> String {
        self.named(blake3::hash(content).as_bytes())
    }

    /// As [`Ids::next`], where the digest of the content is known.
    pub fn named(&mut self, digest: &[u8; 32]) -> String {
        let [a, b, c, d, e, f, g, h, ..] = *digest;
        let first = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let count = self.seen.entry(first).or_insert(0);
        let twin = *count;
        *count += 1;
        if twin == 0 { format!("{first:0DIGITS$x}") } else { format!("{first:0DIGITS$x}-{twin}") }
    }
}

/// True if [`Ids`] named an image that is equal to an earlier one so. Names that others gave may have a hyphen, too.
pub fn is_twin(name: &str) -> bool {
    let digits = |text: &str| text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.split_once('-').is_some_and(|(first, twin)| digits(first) && twin.parse::<u32>().is_ok())
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
        assert!(is_twin(&a1) && !is_twin(&a) && !is_twin("cat-1") && !is_twin("2024-11-28"));
        assert_eq!((a1, a2), (format!("{a}-1"), format!("{a}-2")));
        assert_eq!(Ids::default().next(b"b"), b, "the name does not depend on what came before");
    }
}
