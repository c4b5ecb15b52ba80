//! The kernels by name, and their machine code for each generation of cards.

/// A kernel of `kernels/*.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Transpose,
    Moments,
    Statistics,
    FixedStatistics,
    Normalize,
    GradientMoments,
    GradientCoefficients,
    InputGradient,
    MaxPool,
    MaxPoolGradient,
    Mean,
    MeanGradient,
}

/// All kernels, in the order of their numbers.
pub(crate) const KERNELS: [Kernel; 12] = [
    Kernel::Transpose,
    Kernel::Moments,
    Kernel::Statistics,
    Kernel::FixedStatistics,
    Kernel::Normalize,
    Kernel::GradientMoments,
    Kernel::GradientCoefficients,
    Kernel::InputGradient,
    Kernel::MaxPool,
    Kernel::MaxPoolGradient,
    Kernel::Mean,
    Kernel::MeanGradient,
];

impl Kernel {
    /// As in the source.
    pub(crate) fn name(self) -> &'static str {
        self.facts().0
    }

    /// One letter per argument: `p` an address, `u` a count, `f` a number.
    pub(crate) fn arguments(self) -> &'static str {
        self.facts().1
    }

    fn facts(self) -> (&'static str, &'static str) {
        match self {
            Self::Transpose => ("transpose", "ppuuu"),
            Self::Moments => ("moments", "ppuuu"),
            Self::Statistics => ("statistics", "pppppppuuuf"),
            Self::FixedStatistics => ("fixed_statistics", "pppppuf"),
            Self::Normalize => ("normalize", "ppppuuu"),
            Self::GradientMoments => ("gradient_moments", "pppppuuu"),
            Self::GradientCoefficients => ("gradient_coefficients", "ppppppuuuu"),
            Self::InputGradient => ("input_gradient", "ppppppuu"),
            Self::MaxPool => ("max_pool", "pppuuuuuuuuu"),
            Self::MaxPoolGradient => ("max_pool_gradient", "pppuuuuuuuuu"),
            Self::Mean => ("mean", "ppuuu"),
            Self::MeanGradient => ("mean_gradient", "ppuuu"),
        }
    }
}

/// The kernels for cards of this compute capability, times ten, and newer: PTX, which the driver translates for the card that it finds.
/// `just ptx` makes it, and sees that for 8.0 and 9.0 it would be the same.
const LEAST: u32 = 75;
const PTX: &str = include_str!("kernels/compute_75.ptx");

/// What a card understands; `None` if it is too old.
pub(crate) fn ptx(capability: u32) -> Option<&'static str> {
    (capability >= LEAST).then_some(PTX)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// Name and text of each source, in the order of names, as the recipe reads them.
    const SOURCES: [(&str, &str); 3] = [
        ("batch_norm.cu", include_str!("kernels/batch_norm.cu")),
        ("layout.cu", include_str!("kernels/layout.cu")),
        ("pool.cu", include_str!("kernels/pool.cu")),
    ];

    /// The kernels of the sources, with their arguments as letters.
    fn declared() -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (_, text) in SOURCES {
            for part in text.split("extern \"C\" __global__ void ").skip(1) {
                let (name, rest) = part.split_once('(').unwrap();
                let (arguments, _) = rest.split_once(')').unwrap();
                let letters = arguments.split(',').map(|argument| {
                    if argument.contains('*') {
                        'p'
                    } else if argument.trim().starts_with("unsigned ") {
                        'u'
                    } else {
                        assert!(argument.trim().starts_with("float "), "{name}: {argument}");
                        'f'
                    }
                });
                found.push((name.to_owned(), letters.collect()));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn the_table_is_that_of_the_sources() {
        for (at, kernel) in KERNELS.iter().enumerate() {
            assert_eq!(*kernel as usize, at);
        }
        let mut known: Vec<_> = KERNELS.iter().map(|k| (k.name().to_owned(), k.arguments().to_owned())).collect();
        known.sort();
        assert_eq!(known, declared());
    }

    /// The recipe writes the digest of the sources into the first line, and that of what it made into the second.
    #[test]
    fn the_ptx_was_made_of_these_sources_and_not_changed_since() {
        let mut sources = Sha256::new();
        for (_, text) in SOURCES {
            sources.update(text);
        }
        let sources = hex(&sources.finalize());
        let mut lines = PTX.splitn(3, '\n');
        let (first, second, body) = (lines.next().unwrap(), lines.next().unwrap(), lines.next().unwrap());
        assert_eq!(first, format!("// sources {sources}"), "run `just ptx`");
        assert_eq!(second, format!("// text {}", hex(&Sha256::digest(body))), "it was changed by hand");
        assert!(body.contains(&format!("\n.target sm_{LEAST}\n")));
        for kernel in KERNELS {
            assert!(body.contains(&format!(".entry {}(", kernel.name())), "{}", kernel.name());
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    #[test]
    fn cards_older_than_the_ptx_are_refused() {
        assert_eq!(
            [61, 70, 75, 80, 90, 120].map(|capability| ptx(capability).is_some()),
            [false, false, true, true, true, true]
        );
    }
}
