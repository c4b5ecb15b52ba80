//! Settings of a stage: fields with default and limit, written once with [`settings!`](macro@crate::settings).

use std::fmt;
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Something wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Which setting, dotted from the stage's table: `augment.crop_scale`.
    pub path: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl Complaint {
    /// A complaint about one setting.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: None }
    }

    /// What is wrong with a nested table.
    pub fn below(table: &str, settings: &impl Settings) -> Vec<Self> {
        let dotted = |complaint: Self| Self { path: format!("{table}.{}", complaint.path), ..complaint };
        settings.check().into_iter().map(dotted).collect()
    }

    /// Adds why the limit is where it is.
    #[must_use]
    pub fn because(mut self, why: &str) -> Self {
        self.message = format!("{}: {why}", self.message);
        self
    }

    /// Adds what would be right.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What a setting that is a number must do; NaN does none of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Be this or more.
    AtLeast(f64),
    /// Be finite and above 0.
    AboveZero,
    /// Be finite and not below 0.
    NotNegative,
    /// Be a share of the whole, but not the whole.
    BelowOne,
    /// Lie between these, both included.
    Within(f64, f64),
    /// As [`Limit::Within`], for two numbers of which the first is not the larger.
    Rising(f64, f64),
}

impl fmt::Display for Limit {
    /// What follows "must".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "be at least {least}"),
            Self::AboveZero => f.write_str("be above 0"),
            Self::NotNegative => f.write_str("not be negative"),
            Self::BelowOne => f.write_str("lie in 0–1, below 1"),
            Self::Within(low, high) => write!(f, "lie between {low} and {high}"),
            Self::Rising(low, high) => write!(f, "rise within {low}–{high}"),
        }
    }
}

impl Limit {
    /// [`Limit::Within`] a range of any numbers.
    pub fn within<N: Number>(range: RangeInclusive<N>) -> Self {
        Self::Within(range.start().number(), range.end().number())
    }

    /// [`Limit::Rising`] within a range of any numbers.
    pub fn rising<N: Number>(range: RangeInclusive<N>) -> Self {
        Self::Rising(range.start().number(), range.end().number())
    }

    /// What is wrong with a setting of this value.
    pub fn complaint(self, path: &str, value: &impl Numbers) -> Option<Complaint> {
        let numbers = value.numbers();
        let fits = |&number: &f64| match self {
            Self::AtLeast(least) => number >= least,
            Self::AboveZero => number > 0.0 && number.is_finite(),
            Self::NotNegative => number >= 0.0 && number.is_finite(),
            Self::BelowOne => (0.0..1.0).contains(&number),
            Self::Within(low, high) | Self::Rising(low, high) => (low..=high).contains(&number),
        };
        if numbers.iter().all(fits) && numbers.is_sorted() {
            return None;
        }
        let shown = match numbers.as_slice() {
            [one] => one.to_string(),
            several => format!("[{}]", several.iter().map(f64::to_string).collect::<Vec<_>>().join(", ")),
        };
        Some(Complaint::new(path, format!("is {shown}, and must {self}")))
    }
}

/// A number that a [`Limit`] compares.
pub trait Number: Copy {
    /// As a float.
    fn number(self) -> f64;
}

macro_rules! numbers {
    ($($type:ty),*) => { $(impl Number for $type {
        fn number(self) -> f64 {
            self as f64
        }
    })* };
}
numbers!(i32, u32, u64, usize, f32, f64);

/// The numbers in a setting: one, none where it is not set, or two that are a range.
pub trait Numbers {
    /// All of them.
    fn numbers(&self) -> Vec<f64>;
}

impl<N: Number> Numbers for N {
    fn numbers(&self) -> Vec<f64> {
        vec![self.number()]
    }
}

impl<N: Number> Numbers for Option<N> {
    fn numbers(&self) -> Vec<f64> {
        self.iter().map(|number| number.number()).collect()
    }
}

impl<N: Number> Numbers for [N; 2] {
    fn numbers(&self) -> Vec<f64> {
        self.iter().map(|number| number.number()).collect()
    }
}

/// Settings of a stage, or a table inside them; serde refuses unknown keys. What is written of them and of their fields is what
/// people read in `kinset methods` and in editors. Mostly written by [`settings!`](macro@crate::settings).
pub trait Settings: Serialize + DeserializeOwned + JsonSchema + Clone + Send + Sync {
    /// Everything that is wrong beyond types: ranges, combinations. A stage never checks its own settings again.
    fn check(&self) -> Vec<Complaint> {
        Vec::new()
    }

    /// The limits of its numbers, by dotted path.
    fn limits(&self) -> Vec<(String, Limit)> {
        Vec::new()
    }

    /// The same, as a nested table.
    fn limits_below(&self, table: &str) -> Vec<(String, Limit)> {
        self.limits().into_iter().map(|(path, limit)| (format!("{table}.{path}"), limit)).collect()
    }
}

/// A table that may be absent.
impl<S: Settings> Settings for Option<S> {
    fn check(&self) -> Vec<Complaint> {
        self.iter().flat_map(S::check).collect()
    }

    fn limits(&self) -> Vec<(String, Limit)> {
        self.iter().flat_map(S::limits).collect()
    }
}

/// No settings at all.
#[derive(Clone, Copy, Debug, Default, Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

impl Settings for NoSettings {}

/// Writes a struct of settings: each field with its type, its default and, after a comma, its limit. Unknown keys are refused, and
/// what is not given has its default.
///
/// Limits are `min N`, `above_zero`, `not_negative`, `below_one` (from 0 to below 1), `within A..=B`, `rising A..=B` for
/// `[low, high]`, and `nested` for a table with [`Settings`] of its own; a number that is not set keeps every limit. The reason
/// behind `because` goes into the message. How settings go together is checked by a function that is named after the struct and
/// returns [`Complaint`]s: an `Option`, a `Vec`.
///
/// ```
/// use kinset_stage::{Complaint, Settings};
///
/// kinset_stage::settings! {
///     /// Settings; the defaults are the paper's.
///     pub struct Config {
///         /// Clusters, K.
///         clusters: usize = 10, min 2;
///         /// Images per step.
///         batch: usize = 256, min 2, because "batch norm needs two";
///         /// Earlier images to compare with; unset: as many as a batch.
///         queue: Option<usize> = None;
///     }
///     and combinations
/// }
///
/// impl Config {
///     fn combinations(&self) -> Option<Complaint> {
///         let queue = self.queue.filter(|queue| !queue.is_multiple_of(self.batch))?;
///         Some(Complaint::new("queue", format!("is {queue}, and must be a multiple of `batch`, {}", self.batch)))
///     }
/// }
///
/// let complaints = Config { clusters: 1, batch: 1, ..Config::default() }.check();
/// assert_eq!(complaints[0], Complaint::new("clusters", "is 1, and must be at least 2"));
/// assert_eq!(complaints[1].message, "is 1, and must be at least 2: batch norm needs two");
/// assert_eq!(Config { queue: Some(300), ..Config::default() }.check()[0].path, "queue");
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[$doc:meta])* $field:ident: $type:ty = $default:expr $(, $limit:ident $($bound:expr)? $(, because $why:literal)?)?;)*
        }
        $(and $more:ident)?
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        #[schemars(transform = $crate::schema::limited::<Self>)]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::Settings for $name {
            fn check(&self) -> Vec<$crate::Complaint> {
                let found: &[Vec<$crate::Complaint>] = &[
                    $($($crate::settings!(@check stringify!($field), &self.$field, $limit $($bound)? $(, $why)?),)?)*
                    $(self.$more().into_iter().collect(),)?
                ];
                found.concat()
            }

            fn limits(&self) -> Vec<(String, $crate::Limit)> {
                let all: &[Vec<(String, $crate::Limit)>] =
                    &[$($($crate::settings!(@limits stringify!($field), &self.$field, $limit $($bound)?),)?)*];
                all.concat()
            }
        }
    };
    (@check $path:expr, $value:expr, nested) => { $crate::Complaint::below($path, $value) };
    (@check $path:expr, $value:expr, $limit:ident $($bound:expr)? $(, $why:literal)?) => {
        $crate::settings!(@limit $limit $($bound)?)
            .complaint($path, $value)
            $(.map(|complaint| complaint.because($why)))?
            .into_iter()
            .collect()
    };
    (@limits $path:expr, $value:expr, nested) => { $crate::Settings::limits_below($value, $path) };
    (@limits $path:expr, $value:expr, $limit:ident $($bound:expr)?) => {
        vec![($path.to_owned(), $crate::settings!(@limit $limit $($bound)?))]
    };
    (@limit min $least:expr) => { $crate::Limit::AtLeast($crate::settings::Number::number($least)) };
    (@limit above_zero) => { $crate::Limit::AboveZero };
    (@limit not_negative) => { $crate::Limit::NotNegative };
    (@limit below_one) => { $crate::Limit::BelowOne };
    (@limit within $range:expr) => { $crate::Limit::within($range) };
    (@limit rising $range:expr) => { $crate::Limit::rising($range) };
}
