//! Numbers with units, for people.

use std::time::Duration;

/// `12 B`, `3.4 KiB`, `2.61 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Reads `1024`, `500MB`, `10 GiB`; powers of 1000 or 1024 as written. None for anything else.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let (letter, base) = match unit.strip_suffix("ib") {
        Some(letter) => (letter, 1024.0_f64),
        None => (unit.strip_suffix('b').unwrap_or(&unit), 1000.0),
    };
    let power = match letter {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number * base.powi(power);
    (bytes < 9e18).then_some(bytes as u64)
}

/// `240 ms`, `3.2 s`, `4 min 05 s`, `2 h 07 min`, `4 d 03 h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let whole = seconds.round();
    let n = whole as u64;
    if seconds < 0.9995 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else if n < 3600 {
        format!("{} min {:02} s", n / 60, n % 60)
    } else if n < 100 * 3600 {
        format!("{} h {:02} min", n / 3600, n / 60 % 60)
    } else {
        format!("{} d {:02} h", n / 86400, n / 3600 % 24)
    }
}

/// Bytes as hexadecimal digits, as checksums are written.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// `1,797`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of something: `1 stage`, `1,200 stages`.
pub fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", count(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_written() {
        let read = ["1024", "1.5KiB", "500MB", "10 GiB", "2k", "x", "3 XB", ""].map(parse_bytes);
        assert_eq!(read, [Some(1024), Some(1536), Some(500_000_000), Some(10 << 30), Some(2000), None, None, None]);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1024), bytes(1_234_567), bytes(26_900_000_000)],
            ["0 B", "1023 B", "1.00 KiB", "1.18 MiB", "25.1 GiB"]
        );
        let show = |s: f64| duration(Duration::from_secs_f64(s));
        assert_eq!(
            [show(0.24), show(3.21), show(59.97), show(245.0), show(7620.0), show(99.0 * 3600.0), show(360_000.0)],
            ["240 ms", "3.2 s", "1 min 00 s", "4 min 05 s", "2 h 07 min", "99 h 00 min", "4 d 04 h"]
        );
        assert_eq!(hex(&[0, 0x5a, 255]), "005aff");
        assert_eq!([counted(0, "stage"), counted(1, "stage"), counted(1200, "stage")], ["0 stages", "1 stage", "1,200 stages"]);
        assert_eq!([count(7), count(1797), count(1_281_167)], ["7", "1,797", "1,281,167"]);
    }
}
