//! Which epoch, and which head? The lowest validation loss wins, measured without labels; the first of equals. The last epoch is
//! kept beside it, so that everybody sees what the choice was worth.

use serde::{Deserialize, Serialize};

use super::training::Snapshot;
use crate::health::{Occupancy, PATIENCE};
use kinset_artifact::encoder::{Classifier, Normalization, Tensors};
use kinset_model::{ClassifierNet, HeadChoice};
use kinset_stage::context::Context;
use kinset_stage::error::StageError;

/// The state after the best validation so far, and what was said of the heads in the last.
#[derive(Debug, Default)]
pub struct Selection {
    best: Option<Best>,
    last: Option<Choice>,
}

/// The numbers of one epoch, and which of its heads counts.
#[derive(Debug)]
pub struct Kept {
    /// All of the network.
    pub tensors: Tensors,
    /// The best head of that epoch.
    pub choice: HeadChoice,
}

impl Kept {
    /// As a classifier for pictures.
    ///
    /// # Errors
    /// Numbers that are not finite.
    pub fn classifier(self, net: &ClassifierNet, normalization: &Normalization) -> Result<Classifier, StageError> {
        Ok(Classifier { card: net.card(normalization.clone(), self.choice)?, tensors: self.tensors })
    }
}

/// What training leaves.
#[derive(Debug)]
pub struct Concluded {
    /// The epoch of the lowest validation loss.
    pub best: Kept,
    /// The last epoch.
    pub last: Kept,
}

#[derive(Debug)]
struct Best {
    card: Card,
    tensors: Tensors,
}

/// What of [`Best`] is not tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Card {
    choice: Choice,
    occupancy: Occupancy,
}

/// The losses of the heads after an epoch, and the lowest of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Choice {
    head: usize,
    epoch: u64,
    losses: Vec<f64>,
}

impl Choice {
    fn of(epoch: u64, losses: &[f64]) -> Self {
        let head = (0..losses.len()).fold(0, |best, h| if losses[h] < losses[best] { h } else { best });
        Self { head, epoch, losses: losses.to_vec() }
    }

    fn loss(&self) -> f64 {
        self.losses[self.head]
    }
}

impl Selection {
    /// Looks at a validation and keeps the network if none was better. Returns the best head of this epoch.
    ///
    /// # Shapes
    /// `losses`: `[H]`; `probabilities`: one `[N, K]` per head.
    ///
    /// # Errors
    /// If the device fails.
    pub fn offer(
        &mut self,
        epoch: u64,
        losses: &[f64],
        probabilities: &[Vec<f32>],
        net: &ClassifierNet,
    ) -> Result<usize, StageError> {
        let choice = Choice::of(epoch, losses);
        let head = choice.head;
        if self.best.as_ref().is_none_or(|best| choice.loss() < best.card.choice.loss()) {
            let mut occupancy = Occupancy::new(net.clusters());
            occupancy.observe(&probabilities[head]);
            self.best = Some(Best { card: Card { choice: choice.clone(), occupancy }, tensors: net.to_tensors()? });
        }
        self.last = Some(choice);
        Ok(head)
    }

    /// The best epoch, and the last: the numbers that `net` holds now, after so many steps. `formula` is the loss in words.
    ///
    /// # Errors
    /// Collapsed clusters in the best epoch, unless the steps are too few to tell: then that is said.
    pub fn conclude(self, net: &ClassifierNet, steps: u64, formula: &str, cx: &Context<'_>) -> Result<Concluded, StageError> {
        let (Some(Best { card, tensors }), Some(last)) = (self.best, self.last) else {
            unreachable!("the last epoch always validates")
        };
        let Card { choice, occupancy } = card;
        let empty = occupancy.empty().len();
        let health = occupancy.check(choice.epoch as usize);
        if let Err(collapse) = health {
            if steps >= PATIENCE {
                return Err(collapse.into());
            }
            cx.warn(format!(
                "{collapse}; after {steps} steps that says nothing yet, train longer for clusters that mean something"
            ));
        } else if empty > 0 {
            let clusters = net.clusters();
            cx.warn(format!("{empty} of {clusters} clusters are empty; fewer `clusters` may fit these images better"));
        }
        let kept =
            |tensors, Choice { head, losses, .. }, chosen_by| Kept { tensors, choice: HeadChoice { head, chosen_by, losses } };
        let over = |what: &str, epoch: u64| {
            format!("lowest validation loss over {what} ({formula}, without labels), epoch {}", epoch + 1)
        };
        let (of_best, of_last) = (over("heads and epochs", choice.epoch), over("the heads of the last epoch", last.epoch));
        Ok(Concluded { best: kept(tensors, choice, of_best), last: kept(net.to_tensors()?, last, of_last) })
    }

    /// Puts it into the snapshot.
    ///
    /// # Errors
    /// None in practice: it is numbers.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        if let Some(best) = &self.best {
            snapshot.set("best", &best.card)?;
            snapshot.put("best", best.tensors.clone());
        }
        snapshot.set("last", &self.last)
    }

    /// Takes it out again.
    ///
    /// # Errors
    /// If it is something else.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<(), StageError> {
        if let Some(card) = snapshot.get::<Option<Card>>("best")? {
            self.best = Some(Best { card, tensors: snapshot.take("best") });
        }
        self.last = snapshot.get("last")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use kinset_artifact::encoder::{Backbone, Stem};
    use kinset_base::seed::Seed;
    use kinset_model::{EncoderNet, architecture};

    #[test]
    fn the_first_of_the_lowest_losses_is_kept_and_a_snapshot_remembers_it() {
        let shape = architecture(Backbone::Pixels, Stem::Cifar, 1, 1, 2, None).unwrap();
        let body = EncoderNet::init(&shape, Seed::new(1), &Device::Cpu).unwrap();
        let net = ClassifierNet::init(&body, 2, 2, None, Seed::new(1), &Device::Cpu).unwrap();
        let probabilities = vec![vec![0.9, 0.1, 0.2, 0.8]; 2];
        let mut selection = Selection::default();
        assert_eq!(selection.offer(0, &[3.0, 2.0], &probabilities, &net).unwrap(), 1);
        assert_eq!(selection.offer(1, &[2.0, 2.0], &probabilities, &net).unwrap(), 0, "equal heads: the first");
        let mut snapshot = Snapshot::default();
        selection.save(&mut snapshot).unwrap();
        let mut again = Selection::default();
        again.load(&snapshot).unwrap();
        for found in [selection, again] {
            let choice = found.best.unwrap().card.choice;
            assert_eq!(choice, Choice { epoch: 0, head: 1, losses: vec![3.0, 2.0] }, "equal epochs: the first");
            assert_eq!(found.last, Some(Choice { epoch: 1, head: 0, losses: vec![2.0, 2.0] }));
        }
    }
}
