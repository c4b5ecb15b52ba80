//! The choice of epoch and head: the lowest validation loss, measured without labels; the first of equals. The last epoch is kept
//! beside it, so that everybody sees what the choice was worth.

use serde::{Deserialize, Serialize};

use super::collapse::{ClusterSizes, PATIENCE};
use super::ports::ChosenOut;
use super::snapshot::Snapshot;
use kinset_artifact::curve::{Curve, Point};
use kinset_artifact::encoder::{Classifier, Normalization, Tensors};
use kinset_model::{ClassifierNet, HeadChoice};
use kinset_stage::{Context, StageError};

/// The state after the best validation so far, and what was said of the heads in the last.
#[derive(Debug, Default)]
pub struct BestEpoch {
    best: Option<Card>,
    /// The network of the best; empty before there is one.
    tensors: Tensors,
    last: Option<Choice>,
}

/// The numbers of one epoch, and which of its heads counts.
#[derive(Debug)]
pub struct Kept {
    pub tensors: Tensors,
    /// The best head of that epoch.
    pub choice: HeadChoice,
}

impl Kept {
    /// As a classifier for pictures.
    pub fn classifier(self, net: &ClassifierNet, normalization: &Normalization) -> Result<Classifier, StageError> {
        Ok(Classifier { card: net.card(normalization.clone(), self.choice)?, tensors: self.tensors })
    }
}

/// What is known of the best epoch, beside its network.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Card {
    choice: Choice,
    sizes: ClusterSizes,
}

/// The losses of the heads after an epoch, and the lowest of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Choice {
    head: usize,
    epoch: u64,
    losses: Vec<f64>,
}

/// The head of the lowest loss, the first of equals.
pub fn lowest(losses: &[f64]) -> usize {
    (0..losses.len()).fold(0, |best, head| if losses[head] < losses[best] { head } else { best })
}

impl Choice {
    fn of(epoch: u64, losses: &[f64]) -> Self {
        Self { head: lowest(losses), epoch, losses: losses.to_vec() }
    }

    fn loss(&self) -> f64 {
        self.losses[self.head]
    }
}

impl BestEpoch {
    /// Looks at a validation and keeps the network if none was better. Returns the best head of this epoch.
    ///
    /// # Shapes
    /// `losses`: `[H]`; `probabilities`: one `[N, K]` per head.
    pub fn offer(
        &mut self,
        epoch: u64,
        losses: &[f64],
        probabilities: &[Vec<f32>],
        net: &ClassifierNet,
    ) -> Result<usize, StageError> {
        let choice = Choice::of(epoch, losses);
        let head = choice.head;
        if self.best.as_ref().is_none_or(|best| choice.loss() < best.choice.loss()) {
            let mut sizes = ClusterSizes::new(net.clusters());
            sizes.observe(&probabilities[head]);
            self.best = Some(Card { choice: choice.clone(), sizes });
            self.tensors = net.to_tensors()?;
        }
        self.last = Some(choice);
        Ok(head)
    }

    /// Writes the best epoch, and the last: the numbers that `net` holds now, after so many steps. `formula` is the loss in words;
    /// `made` turns a state of the network into a classifier.
    ///
    /// # Errors
    /// Collapsed clusters in the best epoch, unless the steps are too few to tell: then that is said.
    pub fn finish(
        self,
        net: &ClassifierNet,
        (steps, formula): (u64, &str),
        points: Vec<Point>,
        cx: &Context<'_>,
        made: impl Fn(Kept) -> Result<Classifier, StageError>,
    ) -> Result<ChosenOut, StageError> {
        let (Some(Card { choice, sizes }), tensors, Some(last)) = (self.best, self.tensors, self.last) else {
            unreachable!("the last epoch always validates")
        };
        match sizes.check(choice.epoch as usize) {
            Ok(()) => sizes.warn_if_empty(cx),
            Err(collapse) if steps >= PATIENCE => return Err(collapse.into()),
            Err(collapse) => cx.warn(format!("{collapse}; {steps} steps are too few to tell, train longer")),
        }
        let kept =
            |tensors, Choice { head, losses, .. }, chosen_by| Kept { tensors, choice: HeadChoice { head, chosen_by, losses } };
        let over = |what: &str, epoch: u64| {
            format!("lowest validation loss over {what} ({formula}, without labels), epoch {}", epoch + 1)
        };
        let (of_best, of_last) = (over("heads and epochs", choice.epoch), over("the heads of the last epoch", last.epoch));
        Ok(ChosenOut {
            classifier: made(kept(tensors, choice, of_best))?.save(&cx.out("classifier")?)?,
            curve: Curve { points }.save(&cx.out("curve")?)?,
            last: made(kept(net.to_tensors()?, last, of_last))?.save(&cx.out("last")?)?,
        })
    }

    /// See [`super::training::TrainingLoop::state`].
    pub fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        snapshot.value("best", &mut self.best)?;
        snapshot.value("last", &mut self.last)?;
        let save = |tensors: &Tensors| Ok::<_, StageError>(tensors.clone());
        snapshot.group("best", &mut self.tensors, save, |tensors, saved| {
            *tensors = saved.clone();
            Ok(())
        })
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
        let mut selection = BestEpoch::default();
        assert_eq!(selection.offer(0, &[3.0, 2.0], &probabilities, &net).unwrap(), 1);
        assert_eq!(selection.offer(1, &[2.0, 2.0], &probabilities, &net).unwrap(), 0, "equal heads: the first");
        let mut snapshot = Snapshot::default();
        selection.state(&mut snapshot).unwrap();
        let mut again = BestEpoch::default();
        again.state(&mut snapshot.restoring()).unwrap();
        for found in [selection, again] {
            let choice = found.best.unwrap().choice;
            assert!(!found.tensors.is_empty());
            assert_eq!(choice, Choice { epoch: 0, head: 1, losses: vec![3.0, 2.0] }, "equal epochs: the first");
            assert_eq!(found.last, Some(Choice { epoch: 1, head: 0, losses: vec![2.0, 2.0] }));
        }
    }
}
