//! The outputs of a stage: a struct with one field per output, the main one first.

use kinset_artifact::{Artifact, Draft, DraftFile};

/// An output as the plan sees it.
#[derive(Clone, Copy, Debug)]
pub struct OutputInfo {
    /// Its name; the first output also answers to the bare name of the stage.
    pub name: &'static str,
    /// The kind of artifact.
    pub artifact: &'static str,
    /// Its files, the main one first.
    pub files: &'static [&'static str],
    /// True if a run may come out without it (a flat folder has no labels).
    pub optional: bool,
}

/// A written artifact whose type is only known by name.
#[derive(Clone, Debug)]
pub struct AnyDraft {
    /// The output it is.
    pub output: &'static str,
    /// The kind of artifact.
    pub artifact: &'static str,
    /// Its files.
    pub files: Vec<DraftFile>,
}

/// A field of an output struct: `Draft<A>` or `Option<Draft<A>>`.
pub trait Output {
    /// The artifact it is.
    type Artifact: Artifact;
    /// True for `Option`.
    const OPTIONAL: bool;

    /// Its files, if it was written.
    fn files(self) -> Option<Vec<DraftFile>>;
}

impl<A: Artifact> Output for Draft<A> {
    type Artifact = A;
    const OPTIONAL: bool = false;

    fn files(self) -> Option<Vec<DraftFile>> {
        Some(self.files)
    }
}

impl<A: Artifact> Output for Option<Draft<A>> {
    type Artifact = A;
    const OPTIONAL: bool = true;

    fn files(self) -> Option<Vec<DraftFile>> {
        self.map(|draft| draft.files)
    }
}

/// A struct of outputs. Written by [`outputs!`](macro@crate::outputs).
pub trait Outputs: Sized {
    /// Its outputs, the main one first.
    const OUTPUTS: &'static [OutputInfo];
    /// True if no output carries ground truth.
    const LABEL_FREE: bool;
    /// True if some output is label-free: forbidden to a stage that reads ground truth, or labels could be laundered.
    const ANY_LABEL_FREE: bool;

    /// Forgets the types.
    fn drafts(self) -> Vec<AnyDraft>;
}

/// Writes a struct of outputs: fields are `Draft<A>` or `Option<Draft<A>>`, the main output first.
#[macro_export]
macro_rules! outputs {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $output:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug)]
        $vis struct $name {
            $(#[doc = concat!("The output `", stringify!($field), "`.")] $(#[$field_doc])* pub $field: $output,)*
        }
        impl $crate::Outputs for $name {
            const OUTPUTS: &'static [$crate::OutputInfo] = &[$($crate::OutputInfo {
                name: stringify!($field),
                artifact: <<$output as $crate::outputs::Output>::Artifact as $crate::artifact::Artifact>::KIND,
                files: <<$output as $crate::outputs::Output>::Artifact as $crate::artifact::Artifact>::FILES,
                optional: <$output as $crate::outputs::Output>::OPTIONAL,
            },)*];
            const LABEL_FREE: bool =
                true $(&& <<$output as $crate::outputs::Output>::Artifact as $crate::artifact::Artifact>::LABEL_FREE)*;
            const ANY_LABEL_FREE: bool =
                false $(|| <<$output as $crate::outputs::Output>::Artifact as $crate::artifact::Artifact>::LABEL_FREE)*;

            fn drafts(self) -> Vec<$crate::AnyDraft> {
                let mut drafts = Vec::new();
                $(if let Some(files) = $crate::outputs::Output::files(self.$field) {
                    drafts.push($crate::AnyDraft {
                        output: stringify!($field),
                        artifact: <<$output as $crate::outputs::Output>::Artifact as $crate::artifact::Artifact>::KIND,
                        files,
                    });
                })*
                drafts
            }
        }
    };
}
