//! Which epoch, and which head? The lowest validation loss wins, measured without labels; the first of equals.

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::error::StageError;
use super::training::Snapshot;
use crate::artifact::encoder::Tensors;
use crate::model::{ClassifierNet, HeadChoice};
use crate::train::health::Occupancy;

/// The state after the best validation so far.
#[derive(Debug, Default)]
pub struct Selection {
    best: Option<Best>,
}

#[derive(Debug)]
struct Best {
    card: Card,
    tensors: Tensors,
}

/// What of [`Best`] is not tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Card {
    loss: f64,
    head: usize,
    epoch: u64,
    losses: Vec<f64>,
    occupancy: Occupancy,
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
        let head = (0..losses.len()).fold(0, |best, h| if losses[h] < losses[best] { h } else { best });
        if self.best.as_ref().is_none_or(|best| losses[head] < best.card.loss) {
            let mut occupancy = Occupancy::new(net.clusters());
            occupancy.observe(&probabilities[head]);
            let card = Card { loss: losses[head], head, epoch, losses: losses.to_vec(), occupancy };
            self.best = Some(Best { card, tensors: net.to_tensors()? });
        }
        Ok(head)
    }

    /// Gives the network the numbers of the best epoch, and says which head it was. `formula` is the loss in words.
    ///
    /// # Errors
    /// Collapsed clusters.
    pub fn conclude(self, net: &ClassifierNet, formula: &str, cx: &Context<'_>) -> Result<HeadChoice, StageError> {
        let Some(Best { card, tensors }) = self.best else { unreachable!("the last epoch always validates") };
        card.occupancy.check(card.epoch as usize)?;
        let empty = card.occupancy.empty().len();
        if empty > 0 {
            let clusters = net.clusters();
            cx.warn(format!("{empty} of {clusters} clusters are empty; fewer `clusters` may fit these images better"));
        }
        net.params().load(&tensors)?;
        let epoch = card.epoch + 1;
        let chosen_by = format!("lowest validation loss over heads and epochs ({formula}, without labels), epoch {epoch}");
        Ok(HeadChoice { head: card.head, chosen_by, losses: card.losses })
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
        Ok(())
    }

    /// Takes it out again.
    ///
    /// # Errors
    /// If it is something else.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<(), StageError> {
        if let Some(card) = snapshot.get::<Option<Card>>("best")? {
            self.best = Some(Best { card, tensors: snapshot.take("best") });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::artifact::encoder::{Backbone, Stem};
    use crate::base::seed::Seed;
    use crate::model::{EncoderNet, architecture};

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
            let card = found.best.unwrap().card;
            assert_eq!((card.epoch, card.head, card.losses), (0, 1, vec![3.0, 2.0]), "equal epochs: the first");
        }
    }
}
