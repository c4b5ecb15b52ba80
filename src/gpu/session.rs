//! A plan with its memory on the card, and who uses it.

use std::sync::PoisonError;

use super::card::{Card, Turn, Value, free};
use super::driver::OUT_OF_MEMORY;
use super::error::{GpuError, Result};
use super::plan::{Argument, Buffer, Plan, Purpose, Step};

/// A plan and its memory.
#[derive(Debug)]
pub(crate) struct Session {
    purpose: Purpose,
    pub(crate) plan: Plan,
    /// The address of its memory.
    pub(crate) base: u64,
}

/// Sessions that are kept for the next batch of their shape.
const KEPT: usize = 6;

impl Session {
    pub(crate) fn new(turn: &Turn<'_>, purpose: &Purpose) -> Result<Self> {
        let plan = Plan::of(turn, purpose)?;
        match memory(turn, purpose, 4 * plan.len) {
            Ok(base) => Ok(Self { purpose: purpose.clone(), plan, base }),
            Err(error) => {
                plan.destroy(turn.card);
                Err(error)
            }
        }
    }

    /// Gives memory and descriptors back.
    pub(crate) fn free(self, card: &Card) {
        free(card, self.base);
        self.plan.destroy(card);
    }

    fn address(&self, buffer: Buffer) -> u64 {
        self.base + 4 * buffer.start as u64
    }

    fn write(&self, turn: &Turn<'_>, what: &'static str, numbers: &[f32], to: Buffer) -> Result<()> {
        if numbers.len() != to.len {
            return Err(GpuError::Length { what, found: numbers.len(), wanted: to.len });
        }
        turn.upload(numbers, self.address(to))
    }

    fn read(&self, turn: &Turn<'_>, from: Buffer) -> Result<Vec<f32>> {
        let mut numbers = vec![0.0; from.len];
        turn.download(self.address(from), &mut numbers)?;
        Ok(numbers)
    }

    pub(crate) fn run(&self, turn: &Turn<'_>, steps: &[Step]) -> Result<()> {
        for step in steps {
            match step {
                Step::Launch { kernel, threads, arguments } => {
                    let value = |argument: &Argument| match *argument {
                        Argument::At(buffer) => Value::Address(self.address(buffer)),
                        Argument::Nothing => Value::Address(0),
                        Argument::Sums => Value::Address(self.address(self.plan.sums)),
                        Argument::Count(count) => Value::Count(count as u32),
                        Argument::Number(number) => Value::Number(number),
                    };
                    turn.launch(*kernel, *threads, &arguments.iter().map(value).collect::<Vec<_>>())?;
                }
                Step::Convolve { which, direction, x, w, y, add, .. } => {
                    let workspace = self.address(self.plan.workspace);
                    let at = [*x, *w, *y].map(|buffer| self.address(buffer));
                    self.plan.convolutions[*which].start(turn, *direction, at, workspace, *add)?;
                }
            }
        }
        Ok(())
    }
}

/// Memory on the card. If there is not enough, what nobody uses is given back first.
fn memory(turn: &Turn<'_>, purpose: &Purpose, bytes: usize) -> Result<u64> {
    let full = |error: &GpuError| matches!(error, GpuError::Call { code: OUT_OF_MEMORY, .. });
    match turn.allocate(bytes) {
        Err(error) if full(&error) => {}
        other => return other,
    }
    let idle = std::mem::take(&mut *turn.card.idle.lock().unwrap_or_else(PoisonError::into_inner));
    for session in idle {
        session.free(turn.card);
    }
    match turn.allocate(bytes) {
        Err(error) if full(&error) => {
            let &Purpose { images, height, width, .. } = purpose;
            Err(GpuError::Memory { needed: bytes as u64, free: turn.free_memory()?, images, height, width })
        }
        other => other,
    }
}

/// A session in use, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    card: &'static Card,
    session: Option<Session>,
}

/// What a forward pass makes.
pub(crate) struct Made {
    /// `[B, D]`
    pub(crate) features: Vec<f32>,
    /// The row of statistics of the batch.
    pub(crate) moments: Vec<f32>,
}

impl Lease {
    /// A session for this purpose: one that nobody uses now, or a new one.
    pub(crate) fn of(card: &'static Card, purpose: &Purpose) -> Result<Self> {
        let turn = card.turn()?;
        let mut idle = card.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let known = idle.iter().position(|session| session.purpose == *purpose).map(|at| idle.remove(at));
        drop(idle);
        let session = match known {
            Some(session) => session,
            None => Session::new(&turn, purpose)?,
        };
        Ok(Self { card, session: Some(session) })
    }

    fn session(&self) -> &Session {
        let Some(session) = &self.session else { unreachable!("it is there until it is dropped") };
        session
    }

    /// Features of images. `statistics` are given unless the plan is for training.
    pub(crate) fn forward(&self, images: &[f32], weights: &[f32], statistics: Option<&[f32]>) -> Result<Made> {
        let (turn, session) = (self.card.turn()?, self.session());
        let plan = &session.plan;
        session.write(&turn, "images", images, plan.images)?;
        session.write(&turn, "weights", weights, plan.weights)?;
        if let Some(statistics) = statistics {
            session.write(&turn, "statistics", statistics, plan.moments)?;
        }
        session.run(&turn, &plan.forward)?;
        let moments = if statistics.is_none() { session.read(&turn, plan.moments)? } else { Vec::new() };
        Ok(Made { features: session.read(&turn, plan.features)?, moments })
    }

    /// The gradients of weights and, if they were wanted, of images, from that of the features.
    pub(crate) fn backward(&self, gradient: &[f32]) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let (turn, session) = (self.card.turn()?, self.session());
        let Some(backward) = &session.plan.backward else { unreachable!("it was recorded") };
        session.write(&turn, "gradient", gradient, backward.given)?;
        session.run(&turn, &backward.steps)?;
        let of_images = backward.of_images.map(|images| session.read(&turn, images)).transpose()?;
        Ok((session.read(&turn, backward.of_weights)?, of_images))
    }
}

impl Drop for Lease {
    /// The session is kept for the next batch of this shape; of too many the oldest goes.
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let mut idle = self.card.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(session);
        let oldest = if idle.len() > KEPT { Some(idle.remove(0)) } else { None };
        drop(idle);
        if let Some(session) = oldest {
            session.free(self.card);
        }
    }
}
