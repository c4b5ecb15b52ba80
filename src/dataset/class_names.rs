//! Warnings about names of classes: folders of splits, dates, cameras, and a single one; names that look the same.

use std::collections::BTreeMap;

use icu_normalizer::ComposingNormalizerBorrowed;
use kinset_base::shown::acts;
use kinset_base::unit::count;

const OFF: &str = "leave them unread with `labels = false`";

/// Names of a data set's parts.
const SPLITS: &str = "train training test testing val valid validation dev eval holdout unlabeled unlabelled extra query";

/// Why folders with these names, sorted, are probably no classes, and what to do.
pub(super) fn doubt(names: &[String]) -> Option<String> {
    let all = |is: fn(&str) -> bool| names.iter().all(|name| is(name));
    let shown = |few: usize| {
        let shown: Vec<String> = names.iter().take(few).map(|name| format!("`{name}`")).collect();
        format!("{}{}", shown.join(", "), if names.len() > few { ", …" } else { "" })
    };
    match names {
        [] => None,
        _ if all(is_split) => {
            let parts =
                if names.len() > 1 { format!(", or several with `split = \"{}\"`", names.join("+")) } else { String::new() };
            Some(format!(
                "the classes are {}, which look like parts of a data set: read one with `split = \"{}\"`{parts}, or {OFF}",
                shown(6),
                names[0],
            ))
        }
        _ if all(is_camera) => Some(format!("the classes are {}, which look like a camera's folders: {OFF}", shown(3))),
        _ if all(is_date) => Some(format!("the classes are {}, which look like dates: {OFF}", shown(3))),
        [one] => Some(format!(
            "all images are of one class, `{one}`: if that folder only wraps the others, name it with `root` or `split`; else {OFF}"
        )),
        _ => None,
    }
}

/// Whether some names differ only by what hardly anybody sees: case, how accents are written, letters without width, blanks.
pub(super) fn alike(names: &[String]) -> Option<String> {
    let composed = |text: &str| ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned();
    let visible = |text: &str| text.chars().filter(|letter| !acts(*letter)).collect::<String>();
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in names {
        let group = groups.entry(composed(&visible(name)).to_lowercase().trim().to_owned()).or_default();
        if !group.contains(&name.as_str()) {
            group.push(name);
        }
    }
    let several: Vec<_> = groups.into_values().filter(|group| group.len() > 1).collect();
    let [one, other, ..] = several.first()?[..] else { return None };
    let by = match () {
        () if one.to_lowercase() == other.to_lowercase() => "case",
        () if composed(one) == composed(other) => "how accents are written (Unicode normalization)",
        () if visible(one) == visible(other) => "letters that cannot be seen",
        () if one.trim() == other.trim() => "blanks around them",
        () => "case, accents, blanks or letters that cannot be seen",
    };
    let more = match several.len() {
        1 => String::new(),
        n => format!("; {} more look alike", count(n as u64 - 1)),
    };
    Some(format!(
        "the classes `{one}` and `{other}` differ only in {by}, and are counted apart{more}: if they are one, give them one name"
    ))
}

fn is_split(name: &str) -> bool {
    SPLITS.split(' ').any(|split| name.eq_ignore_ascii_case(split))
}

/// As the design rule for camera file systems names them (DCF, 3.2: `100CANON`), and their parent.
fn is_camera(name: &str) -> bool {
    let name = name.as_bytes();
    let numbered = name.len() == 8
        && name[0] != b'0'
        && name[..3].iter().all(u8::is_ascii_digit)
        && name[3..].iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_')
        && !name[3..].iter().all(u8::is_ascii_digit);
    numbered || name.eq_ignore_ascii_case(b"dcim") || name.eq_ignore_ascii_case(b"camera")
}

/// A year from 1900 to 2099, perhaps with month and day behind it: `2023`, `2023-05`, `2023_05_01`, `20230501`, `2023-05 Rome`.
fn is_date(name: &str) -> bool {
    let Some((year, rest)) = name.split_at_checked(4) else { return false };
    if !matches!(year.as_bytes(), [b'1', b'9', b'0'..=b'9', b'0'..=b'9'] | [b'2', b'0', b'0'..=b'9', b'0'..=b'9']) {
        return false;
    }
    let digits: Vec<u8> = rest.bytes().filter(u8::is_ascii_digit).collect();
    let between = |from: u8, to: u8, two: &[u8]| (from..=to).contains(&((two[0] - b'0') * 10 + two[1] - b'0'));
    let plain = rest.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.' | b' '));
    match (rest.bytes().next(), digits.len()) {
        (None, _) => true,
        (_, 2) if plain => between(1, 12, &digits),
        (_, 4) if plain => between(1, 12, &digits[..2]) && between(1, 31, &digits[2..]),
        // Words behind a date tell of an occasion.
        (Some(b'-' | b'_' | b' ' | b'.'), 2..) if !plain => between(1, 12, &digits[..2]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubt_of(names: &[&str]) -> Option<String> {
        doubt(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn folders_that_look_like_no_classes_are_doubted_and_the_remedy_is_named() {
        for (names, words) in [
            (
                &["test", "train"][..],
                &["`test`, `train`", "parts of a data set", "split = \"test+train\"", "labels = false"][..],
            ),
            (&["Train"], &["split = \"Train\""]),
            (&["images"], &["one class, `images`", "`root`", "labels = false"]),
            (&["2023", "2024"], &["look like dates", "labels = false"]),
            (&["2023-05-01", "20230502", "2024_06", "2024-07 Rome"], &["look like dates"]),
            (&["100CANON", "101_PANA", "DCIM"], &["a camera's folders"]),
        ] {
            let said = doubt_of(names).unwrap_or_else(|| panic!("{names:?}"));
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }

    #[test]
    fn names_that_look_the_same_are_doubted() {
        let alike = |names: &[&str]| alike(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        for (names, words) in [
            (&["Cat", "cat", "dog"][..], "`Cat` and `cat` differ only in case, and"),
            (&["caf\u{e9}", "cafe\u{301}"], "differ only in how accents are written (Unicode normalization), and"),
            (&["cat", "ca\u{200b}t"], "differ only in letters that cannot be seen, and"),
            (&["cat", "cat "], "differ only in blanks around them, and"),
            (&["cat", "Cat "], "differ only in case, accents, blanks or letters"),
            (&["Cat", "DOG", "cat", "dog"], "counted apart; 1 more look alike: if they are one"),
        ] {
            let said = alike(names).unwrap_or_else(|| panic!("{names:?}"));
            assert!(said.contains(words), "{said}");
        }
        for names in [&["cat", "cats"][..], &["crane", "crane"], &["\u{e9}", "e"], &["猫", "犬"], &[]] {
            assert_eq!(alike(names), None, "{names:?}");
        }
    }

    #[test]
    fn names_of_classes_are_not_doubted() {
        for names in [
            &["cat", "dog"][..],
            &["airplane", "train"],
            &["0", "1"],
            &["n01440764", "n01443537"],
            &["1000", "2000"],
            &["20231399", "2024"],
            &["12345678", "22345678"],
            &[],
        ] {
            assert_eq!(doubt_of(names), None, "{names:?}");
        }
    }
}
