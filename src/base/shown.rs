//! Safe display of foreign text: control characters, marks of writing direction and letters that nobody sees are escaped.

use std::borrow::Cow;

/// True for a letter that does something instead of being seen, or that takes no place: names that differ by it look the same.
pub fn acts(letter: char) -> bool {
    letter.is_control() || is_direction(letter) || is_unseen(letter)
}

/// Marks of writing direction (Unicode's Bidi_Control, and the older marks of U+206A to U+206F).
fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

/// Letters without width, ends of lines that are no control characters, and tags. What chooses the form of a letter that is seen, as
/// in emoji, is none of them.
fn is_unseen(letter: char) -> bool {
    matches!(
        letter,
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
            | '\u{200b}'..='\u{200d}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2064}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// The text with such letters escaped, `\u{1b}`; ends of lines and tabs stay.
pub fn shown(text: &str) -> Cow<'_, str> {
    let acts = |letter: char| acts(letter) && !matches!(letter, '\n' | '\t');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if acts(letter) { out.extend(letter.escape_default()) } else { out.push(letter) }
    }
    Cow::Owned(out)
}

/// As [`shown`], for text that was colored on purpose: sequences that set colors stay, all others are escaped.
pub fn shown_in_color(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut out = shown(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let color =
            part.find(|letter: char| !letter.is_ascii_digit() && letter != ';').filter(|&end| part[end..].starts_with('m'));
        out.push_str(if color.is_some() { "\x1b[" } else { "\\u{1b}[" });
        out.push_str(&shown(part));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_seen_and_everything_else_is_as_it_was() {
        for text in ["", "a b\tc\nd é 猫 🐈 \u{301}", "`x\\u{1b}`"] {
            assert!(matches!(shown(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(shown("x\x1b[31mEVIL\r\x07\u{9b}2J\x7f"), "x\\u{1b}[31mEVIL\\r\\u{7}\\u{9b}2J\\u{7f}");
        assert_eq!(shown("gnp.\u{202e}exe\u{2066}"), "gnp.\\u{202e}exe\\u{2066}");
        assert_eq!(shown("ca\u{200b}t\u{feff} co\u{ad}w\u{2028}"), "ca\\u{200b}t\\u{feff} co\\u{ad}w\\u{2028}");
    }

    #[test]
    fn colors_stay_and_other_sequences_do_not() {
        assert_eq!(shown_in_color("\x1b[31;1merror\x1b[0m: a"), "\x1b[31;1merror\x1b[0m: a");
        assert_eq!(shown_in_color("\x1b[2J\x1b]0;title\x07\x1b["), "\\u{1b}[2J\\u{1b}]0;title\\u{7}\\u{1b}[");
        assert_eq!(shown_in_color("no color, \u{202e}"), "no color, \\u{202e}");
    }
}
