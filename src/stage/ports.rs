//! The ports of a stage, what it reads: a struct with one field per port, bound by name and type.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;

use super::error::StageError;
use kinset_artifact::{Artifact, Stored};
use kinset_store::digest::Digest;

/// How the name of a port ends that brings what a setting says otherwise: `clusters_from` stands for `clusters`, and a pipeline names
/// one of them.
pub const STANDS_FOR: &str = "_from";

/// How many artifacts a port takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one.
    One,
    /// One or none.
    Optional,
    /// A list, one or more.
    Many,
    /// A list, possibly none.
    Any,
    /// One, where exactly one of a stage's `Either` ports is connected.
    Either,
    /// A list, where exactly one of a stage's `Either` ports is connected.
    EitherMany,
}

impl Arity {
    /// Whether a pipeline may name several.
    pub fn is_list(self) -> bool {
        matches!(self, Self::Many | Self::Any | Self::EitherMany)
    }

    /// Whether a pipeline must name one.
    pub fn is_needed(self) -> bool {
        matches!(self, Self::One | Self::Many)
    }

    /// Whether it is an alternative to others of its kind.
    pub fn is_either(self) -> bool {
        matches!(self, Self::Either | Self::EitherMany)
    }
}

/// A port as the plan sees it.
#[derive(Clone, Copy, Debug)]
pub struct PortInfo {
    /// Its key in the pipeline file.
    pub name: &'static str,
    /// The kind of artifact it takes.
    pub artifact: &'static str,
    /// How many it takes.
    pub arity: Arity,
    /// Whether what it lists follows each other: of a source that is cut it takes all parts.
    pub collects: bool,
}

/// An artifact in the store whose type is only known by name.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The kind of artifact.
    pub artifact: String,
    /// Its files, in the order of the kind.
    pub files: Vec<PathBuf>,
    /// What it says.
    pub digest: Digest,
    /// The stage it comes from.
    pub origin: String,
}

/// What the plan wired to each port.
pub type Offers = BTreeMap<String, Vec<Offer>>;

/// A port that stands for others: of all such ports of a stage exactly one is connected, which the plan checks.
#[derive(Clone, Debug)]
pub struct Either<P>(pub Option<P>);

/// A list of sets of images that follow each other, such as the shards of a pool. Other lists are views of the same images. Where a
/// source is cut, all that lies below it is there once for each part, and such a port takes all parts, in their order.
#[derive(Clone, Debug)]
pub struct Parts<P>(pub P);

impl<P> Deref for Parts<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.0
    }
}

/// A field of a port struct: `Stored<A>`, `Option<Stored<A>>`, `Vec<Stored<A>>`, `Option<Vec<Stored<A>>>`, an [`Either`] of one or a list,
/// or [`Parts`] of a list.
pub trait Port: Sized {
    /// The artifact it takes.
    type Artifact: Artifact;
    /// How many.
    const ARITY: Arity;
    /// Whether it takes all parts of a source that is cut.
    const COLLECTS: bool = false;

    /// Takes what was wired.
    ///
    /// # Errors
    /// If number or kind do not fit; the plan has checked both, so this is our bug.
    fn bind(port: &'static str, offers: &[Offer]) -> Result<Self, StageError>;
}

fn typed<A: Artifact>(port: &'static str, offer: &Offer) -> Result<Stored<A>, StageError> {
    if offer.artifact != A::KIND || offer.files.len() != A::FILES.len() {
        return Err(StageError::Bound { port, want: A::KIND, got: offer.artifact.clone() });
    }
    Ok(Stored::new(offer.files.clone(), offer.digest, offer.origin.clone()))
}

fn mismatch<A: Artifact>(port: &'static str, offers: &[Offer]) -> StageError {
    StageError::Bound { port, want: A::KIND, got: format!("{} artifacts", offers.len()) }
}

impl<A: Artifact> Port for Stored<A> {
    type Artifact = A;
    const ARITY: Arity = Arity::One;

    fn bind(port: &'static str, offers: &[Offer]) -> Result<Self, StageError> {
        match offers {
            [one] => typed(port, one),
            _ => Err(mismatch::<A>(port, offers)),
        }
    }
}

impl<A: Artifact> Port for Option<Stored<A>> {
    type Artifact = A;
    const ARITY: Arity = Arity::Optional;

    fn bind(port: &'static str, offers: &[Offer]) -> Result<Self, StageError> {
        match offers {
            [] => Ok(None),
            [one] => typed(port, one).map(Some),
            _ => Err(mismatch::<A>(port, offers)),
        }
    }
}

impl<A: Artifact> Port for Vec<Stored<A>> {
    type Artifact = A;
    const ARITY: Arity = Arity::Many;

    fn bind(port: &'static str, offers: &[Offer]) -> Result<Self, StageError> {
        offers.iter().map(|offer| typed(port, offer)).collect()
    }
}

impl<A: Artifact> Port for Option<Vec<Stored<A>>> {
    type Artifact = A;
    const ARITY: Arity = Arity::Any;

    fn bind(port: &'static str, offers: &[Offer]) -> Result<Self, StageError> {
        if offers.is_empty() { Ok(None) } else { Vec::bind(port, offers).map(Some) }
    }
}

impl<A: Artifact> Port for Either<Stored<A>> {
    type Artifact = A;
    const ARITY: Arity = Arity::Either;

    fn bind(port: &'static str, offers: &[Offer]) -> Result<Self, StageError> {
        Option::bind(port, offers).map(Self)
    }
}

impl<A: Artifact> Port for Either<Vec<Stored<A>>> {
    type Artifact = A;
    const ARITY: Arity = Arity::EitherMany;

    fn bind(port: &'static str, offers: &[Offer]) -> Result<Self, StageError> {
        Option::bind(port, offers).map(Self)
    }
}

impl<P: Port> Port for Parts<P> {
    type Artifact = P::Artifact;
    const ARITY: Arity = P::ARITY;
    const COLLECTS: bool = true;

    fn bind(port: &'static str, offers: &[Offer]) -> Result<Self, StageError> {
        P::bind(port, offers).map(Self)
    }
}

/// A struct of ports. Written by [`ports!`](macro@crate::ports).
pub trait Ports: Sized {
    /// Its ports, in order.
    const PORTS: &'static [PortInfo];
    /// True if no port carries ground truth.
    const LABEL_FREE: bool;

    /// Takes what was wired.
    ///
    /// # Errors
    /// As [`Port::bind`].
    fn bind(offers: &Offers) -> Result<Self, StageError>;
}

/// Ports that carry no ground truth: the only ones a method may have. Written by [`ports!`](macro@crate::ports) with `label_free`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` may carry ground truth, and ground truth never reaches a method",
    note = "declare the ports with `ports! {{ label_free struct … }}`; labels and scores are refused there"
)]
pub trait LabelFreePorts: Ports {}

/// Writes a struct of ports: fields are `Stored<A>`, `Option<Stored<A>>` or `Vec<Stored<A>>`.
///
/// With `label_free` every artifact must be [`LabelFree`](kinset_artifact::LabelFree), checked by the compiler:
///
/// ```compile_fail,E0277
/// use kinset_artifact::{Stored, images::Images, labels::Labels};
/// kinset_stage::ports! {
///     /// A method that peeks at the truth.
///     pub label_free struct Peek { images: Stored<Images>, labels: Stored<Labels> }
/// }
/// ```
///
/// The same without the labels is fine:
///
/// ```
/// use kinset_artifact::{Stored, images::Images};
/// kinset_stage::ports! {
///     /// A method that does not.
///     pub label_free struct Honest { images: Stored<Images> }
/// }
/// ```
#[macro_export]
macro_rules! ports {
    ($(#[$doc:meta])* $vis:vis label_free struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $port:ty),* $(,)? }) => {
        $crate::ports! { $(#[$doc])* $vis struct $name { $($(#[$field_doc])* $field: $port),* } }
        impl $crate::LabelFreePorts for $name {}
        const _: () = {
            const fn label_free<P: $crate::Port<Artifact: $crate::artifact::LabelFree>>() {}
            $(label_free::<$port>();)*
        };
    };
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $port:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug)]
        $vis struct $name {
            $(#[doc = concat!("What is wired to the port `", stringify!($field), "`.")] $(#[$field_doc])* pub $field: $port,)*
        }
        impl $crate::Ports for $name {
            const PORTS: &'static [$crate::PortInfo] = &[$($crate::PortInfo {
                name: stringify!($field),
                artifact: <<$port as $crate::Port>::Artifact as $crate::artifact::Artifact>::KIND,
                arity: <$port as $crate::Port>::ARITY,
                collects: <$port as $crate::Port>::COLLECTS,
            },)*];
            const LABEL_FREE: bool =
                true $(&& <<$port as $crate::Port>::Artifact as $crate::artifact::Artifact>::LABEL_FREE)*;

            fn bind(offers: &$crate::Offers) -> Result<Self, $crate::StageError> {
                let _ = offers;
                Ok(Self { $($field: $crate::Port::bind(
                    stringify!($field),
                    offers.get(stringify!($field)).map_or(&[], Vec::as_slice),
                )?,)* })
            }
        }
    };
}
