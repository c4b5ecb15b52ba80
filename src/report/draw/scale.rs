//! The scale of an axis: round ticks (Heckbert 1990, "Nice numbers for graph labels") and short numbers.

/// A linear axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Values from `low` to `high` lie between two places. A range of nothing is widened, that of 0 upward.
    pub fn new((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let flat = high - low <= 1e-12 * high.abs().max(low.abs());
        let (low, high) = if !flat {
            (low, high)
        } else if low.abs() < 1e-300 {
            (0.0, 1.0)
        } else {
            (low - 0.1 * low.abs(), low + 0.1 * low.abs())
        };
        Self { low, high, from, to }
    }

    /// The range of some values; 0 to 1 if there are none.
    pub fn range(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
        let (low, high) =
            values.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        if low <= high { (low, high) } else { (0.0, 1.0) }
    }

    /// Where a value lies.
    pub fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Round values within the range, about so many.
    pub fn ticks(&self, about: usize) -> Vec<f64> {
        let step = self.step(about);
        let first = (self.low / step - 1e-9).ceil();
        (0..50).map(|i| (first + f64::from(i)) * step).take_while(|tick| *tick <= self.high + step * 1e-6).collect()
    }

    /// The same in words, with as many digits as tell them apart.
    pub fn labels(&self, about: usize) -> Vec<(f64, String)> {
        let step = self.step(about);
        // 2.5 needs one more than 2.
        let digits = (0..9)
            .find(|&digits| (step * 10.0_f64.powi(digits)).fract().min(1.0 - (step * 10.0_f64.powi(digits)).fract()) < 1e-6);
        let large = self.low.abs().max(self.high.abs()) >= 1e6;
        let word = |tick: f64| match digits {
            Some(digits) if !large => format!("{tick:.0$}", digits as usize),
            _ => tidy(tick),
        };
        self.ticks(about)
            .into_iter()
            .map(|tick| (tick, if tick.abs() < step * 1e-9 { "0".to_owned() } else { word(tick) }))
            .collect()
    }

    fn step(&self, about: usize) -> f64 {
        let raw = (self.high - self.low) / about.max(1) as f64;
        let power = 10.0_f64.powf(raw.log10().floor());
        [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|nice| nice * power).find(|step| *step >= raw * 0.999).unwrap_or(raw)
    }
}

/// A number for a tick or a label: four figures, no more.
pub fn tidy(value: f64) -> String {
    let size = value.abs();
    if size < 1e-12 {
        return "0".to_owned();
    }
    if !(1e-3..1e6).contains(&size) {
        let text = format!("{value:.1e}");
        return text.replace(".0e", "e");
    }
    let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(Scale::new((0.0, 1.0), (0.0, 100.0)).ticks(5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(Scale::new((-11.1, -9.3), (0.0, 1.0)).ticks(4), [-11.0, -10.5, -10.0, -9.5]);
        let flat = Scale::new((3.0, 3.0), (0.0, 10.0));
        assert!((flat.at(3.0) - 5.0).abs() < 1e-12, "one value lies in the middle");
        assert!(flat.ticks(3).iter().all(|tick| (2.5..=3.5).contains(tick)));
        let zero = Scale::new((0.0, 0.0), (0.0, 10.0));
        assert!(zero.at(0.0).abs() < 1e-12 && zero.ticks(4).iter().all(|tick| *tick >= 0.0), "nothing is not below nothing");
        assert_eq!(Scale::range([]), (0.0, 1.0));
        let words = |low: f64, high: f64| {
            let labels = Scale::new((low, high), (0.0, 1.0)).labels(3);
            labels.into_iter().map(|(_, word)| word).collect::<Vec<_>>()
        };
        assert_eq!(words(0.999_997, 1.0), ["0.999997", "0.999998", "0.999999", "1.000000"]);
        assert_eq!(
            (words(-1.0, 1.0), words(0.0, 7.5)),
            (vec!["-1".into(), "0".into(), "1".into()], vec!["0".into(), "2.5".into(), "5.0".into(), "7.5".into()])
        );
    }

    #[test]
    fn numbers_are_as_short_as_they_may_be() {
        assert_eq!(
            [tidy(0.0), tidy(0.2), tidy(12345.0), tidy(1.0 / 3.0), tidy(-10.5), tidy(2e-5), tidy(3.5e7)],
            ["0", "0.2", "12345", "0.3333", "-10.5", "2e-5", "3.5e7"]
        );
    }
}
