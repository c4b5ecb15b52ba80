//! The steps of a network for one shape of batch, and the buffers that they use, laid out once in one piece of memory.

use super::card::{Card, Turn};
use super::convolution::{Convolution, Direction};
use super::error::{GpuError, Result};
use super::kernels::Kernel;
use super::network::{Network, Place, Pool, Unit};
use Argument::{At, Count, Nothing, Number, Sums};

/// What a plan is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Purpose {
    pub(crate) network: Network,
    /// B.
    pub(crate) images: usize,
    /// Pixels.
    pub(crate) height: usize,
    /// Pixels.
    pub(crate) width: usize,
    /// Statistics are those of the batch.
    pub(crate) training: bool,
    /// A gradient can be wanted, so activations are kept.
    pub(crate) recorded: bool,
    /// That of the images too.
    pub(crate) of_images: bool,
}

/// A part of the memory: where it begins, and how many numbers of four bytes it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Buffer {
    fn part(self, range: &std::ops::Range<usize>) -> Self {
        Self { start: self.start + range.start, len: range.len() }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument {
    At(Buffer),
    /// An address that means nothing is there.
    Nothing,
    /// The sums of slices, which all units share.
    Sums,
    Count(usize),
    Number(f32),
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Launch {
        kernel: Kernel,
        threads: usize,
        arguments: Vec<Argument>,
    },
    Convolve {
        /// By its number in the plan.
        which: usize,
        direction: Direction,
        x: Buffer,
        w: Buffer,
        y: Buffer,
        /// To what is there already.
        add: bool,
        shape: Shape,
    },
}

/// A convolution of maps of this size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) unit: Unit,
    /// Pixels.
    pub(crate) height: usize,
    /// Pixels.
    pub(crate) width: usize,
}

#[derive(Debug)]
pub(crate) struct Backward {
    /// `[B, D]`, of the features.
    pub(crate) given: Buffer,
    /// As the row of weights.
    pub(crate) of_weights: Buffer,
    /// `[B, C, H, W]`
    pub(crate) of_images: Option<Buffer>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug)]
pub(crate) struct Plan {
    /// `[B, C, H, W]`
    pub(crate) images: Buffer,
    pub(crate) weights: Buffer,
    /// As the row of statistics: of the batch, or given.
    pub(crate) moments: Buffer,
    /// `[B, D]`
    pub(crate) features: Buffer,
    pub(crate) forward: Vec<Step>,
    pub(crate) backward: Option<Backward>,
    pub(crate) convolutions: Vec<Convolution>,
    pub(crate) sums: Buffer,
    pub(crate) workspace: Buffer,
    /// Numbers in all.
    pub(crate) len: usize,
}

/// Added to the variance before the root.
const EPSILON: f32 = 1e-5;
/// Buffers begin at multiples of so many numbers: 256 bytes, what the driver aligns to.
const ALIGNMENT: usize = 64;
/// Rows that a thread adds up, at least, and threads of one sum over rows, about.
const ROWS: usize = 64;
const THREADS: usize = 65_536;

/// Slices that a sum over rows is cut into. Of the shape alone, so that sums have one order.
fn slices(rows: usize, channels: usize) -> usize {
    (THREADS / channels).min(rows / ROWS).max(1)
}

/// An activation `[B, H, W, C]`.
#[derive(Clone, Copy)]
struct Map {
    at: Buffer,
    height: usize,
    width: usize,
    channels: usize,
}

/// What the backward pass needs to know of a unit.
struct Done {
    unit: Unit,
    place: Place,
    which: usize,
    /// What it read.
    x: Map,
    /// Weights `[outputs, kernel, kernel, inputs]`.
    w: Buffer,
    /// The convolution's output.
    c: Buffer,
    y: Map,
    rectified: bool,
    /// f64 `[2, C]`.
    saved: Buffer,
}

impl Done {
    fn shape(&self) -> Shape {
        Shape { unit: self.unit, height: self.x.height, width: self.x.width }
    }
}

struct Planner<'a, 'b> {
    purpose: &'a Purpose,
    turn: &'a Turn<'b>,
    len: usize,
    /// Buffers that nobody uses any more, by their size.
    spare: Vec<Buffer>,
    weights: Buffer,
    moments: Buffer,
    sums: usize,
    steps: Vec<Step>,
    convolutions: Vec<Convolution>,
    /// Gradients of weights, as `w`, and `coefficients`: what all units share.
    of_w: Buffer,
    coefficients: Buffer,
    of_weights: Buffer,
}

impl Plan {
    /// # Errors
    /// [`GpuError::TooLarge`], [`GpuError::NoAlgorithm`]; whatever cuDNN says.
    pub(crate) fn of(turn: &Turn<'_>, purpose: &Purpose) -> Result<Self> {
        let none = Buffer { start: 0, len: 0 };
        let mut planner = Planner {
            purpose,
            turn,
            len: 0,
            spare: Vec::new(),
            weights: none,
            moments: none,
            sums: 0,
            steps: Vec::new(),
            convolutions: Vec::new(),
            of_w: none,
            coefficients: none,
            of_weights: none,
        };
        planner.plan().inspect_err(|_| planner.convolutions.iter().for_each(|convolution| convolution.destroy(turn.card)))
    }

    /// Gives back what cuDNN lent.
    pub(crate) fn destroy(&self, card: &Card) {
        self.convolutions.iter().for_each(|convolution| convolution.destroy(card));
    }
}

impl Planner<'_, '_> {
    fn plan(&mut self) -> Result<Plan> {
        let purpose = self.purpose;
        let Purpose { network, images: batch, height, width, recorded, .. } = purpose;
        let (weights, statistics) = network.lengths();
        let places = network.places();
        let mut places = places.iter();
        let pixels = [network.first.inputs, *height, *width].iter().product::<usize>() * batch;
        let images = self.fresh(pixels)?;
        self.weights = self.fresh(weights)?;
        self.moments = self.fresh(statistics)?;
        let input = Map { at: self.take(pixels)?, height: *height, width: *width, channels: network.first.inputs };
        self.transpose(images, input.at, [*batch, input.channels, height * width]);
        let first = self.unit(&network.first, places.next(), input, true, None)?;
        self.give(input.at);
        let mut map = first.y;
        let pooled = network.pool.map(|pool| self.pool(pool, map)).transpose()?;
        map = pooled.as_ref().map_or(map, |(map, _)| *map);
        let mut blocks = Vec::new();
        for block in &network.blocks {
            let from = map;
            let Some((last, firsts)) = block.units.split_last() else { continue };
            let (mut done, mut places_of) = (Vec::new(), Vec::new());
            places_of.extend(block.units.iter().chain(&block.shortcut).map(|_| places.next()));
            let mut place = places_of.into_iter();
            for unit in firsts {
                let unit = self.unit(unit, place.next().flatten(), map, true, None)?;
                if !done.is_empty() {
                    self.give(map.at);
                }
                map = unit.y;
                done.push(unit);
            }
            let of_last = place.next().flatten();
            let shortcut = block.shortcut.as_ref();
            let shortcut = shortcut.map(|unit| self.unit(unit, place.next().flatten(), from, false, None)).transpose()?;
            let residual = shortcut.as_ref().map_or(from, |unit| unit.y);
            let unit = self.unit(last, of_last, map, true, Some(residual))?;
            if !done.is_empty() {
                self.give(map.at);
            }
            self.give(from.at);
            if shortcut.is_some() {
                self.give(residual.at);
            }
            map = unit.y;
            done.push(unit);
            blocks.push((done, shortcut));
        }
        let features = self.fresh(batch * map.channels)?;
        let counts = [features.len, map.height * map.width, map.channels];
        self.launch(Kernel::Mean, features.len, &[At(map.at), At(features)], &counts, None);
        let forward = std::mem::take(&mut self.steps);
        let backward =
            if *recorded { Some(self.backward(&first, pooled.map(|(_, w)| w), &blocks, map, features)?) } else { None };
        let sums = self.fresh(self.sums)?;
        let workspace = self.convolutions.iter().map(Convolution::workspace).max().unwrap_or(0);
        let workspace = self.fresh(workspace.div_ceil(4))?;
        let (weights, moments, convolutions) = (self.weights, self.moments, std::mem::take(&mut self.convolutions));
        Ok(Plan { images, weights, moments, features, forward, backward, convolutions, sums, workspace, len: self.len })
    }

    /// A buffer that nobody else gets.
    fn fresh(&mut self, len: usize) -> Result<Buffer> {
        let &Purpose { images, height, width, .. } = self.purpose;
        // Kernels count in 32 bits.
        if len > i32::MAX as usize {
            return Err(GpuError::TooLarge { images, height, width });
        }
        let start = self.len;
        self.len += len.next_multiple_of(ALIGNMENT);
        Ok(Buffer { start, len })
    }

    /// A buffer of which no part is in use: the smallest that is spare and large enough, or a fresh one.
    fn take(&mut self, len: usize) -> Result<Buffer> {
        let room = len.next_multiple_of(ALIGNMENT);
        let fitting = self.spare.iter().enumerate().filter(|(_, spare)| spare.len >= room);
        let Some((at, _)) = fitting.min_by_key(|(at, spare)| (spare.len, *at)) else { return self.fresh(len) };
        let spare = self.spare.swap_remove(at);
        if spare.len > room {
            self.spare.push(Buffer { start: spare.start + room, len: spare.len - room });
        }
        Ok(Buffer { start: spare.start, len })
    }

    /// Lets others have a buffer of an activation, unless the backward pass will read it.
    fn give(&mut self, buffer: Buffer) {
        if !self.purpose.recorded {
            self.give_back(buffer);
        }
    }

    fn give_back(&mut self, buffer: Buffer) {
        self.spare.push(Buffer { start: buffer.start, len: buffer.len.next_multiple_of(ALIGNMENT) });
    }

    fn launch(&mut self, kernel: Kernel, threads: usize, addresses: &[Argument], counts: &[usize], number: Option<f32>) {
        let counts = counts.iter().map(|count| Count(*count));
        let arguments: Vec<Argument> = addresses.iter().copied().chain(counts).chain(number.map(Number)).collect();
        let letters = arguments.iter().map(|argument| match argument {
            At(_) | Nothing | Sums => 'p',
            Count(_) => 'u',
            Number(_) => 'f',
        });
        debug_assert!(letters.eq(kernel.arguments().chars()), "{kernel:?} takes {}", kernel.arguments());
        self.steps.push(Step::Launch { kernel, threads, arguments });
    }

    /// `to` [batch, columns, rows] from `from` [batch, rows, columns].
    fn transpose(&mut self, from: Buffer, to: Buffer, [batch, rows, columns]: [usize; 3]) {
        self.launch(Kernel::Transpose, batch * rows * columns, &[At(from), At(to)], &[batch, rows, columns], None);
    }

    fn rows(&self, map: Map) -> usize {
        self.purpose.images * map.height * map.width
    }

    /// Convolution, batch norm, the sum with a residual, rectification.
    fn unit(&mut self, unit: &Unit, place: Option<&Place>, x: Map, rectified: bool, residual: Option<Map>) -> Result<Done> {
        let Some(place) = place.cloned() else { unreachable!("there is a place for each unit") };
        let (height, width, channels) = (unit.side(x.height), unit.side(x.width), unit.outputs);
        let y = |at| Map { at, height, width, channels };
        let rows = self.purpose.images * height * width;
        let which = self.convolutions.len();
        let shape = Shape { unit: *unit, height: x.height, width: x.width };
        self.convolutions.push(Convolution::new(self.turn, unit, [self.purpose.images, x.height, x.width])?);
        let w = self.take(place.weight.len())?;
        self.transpose(self.weights.part(&place.weight), w, [unit.outputs, unit.inputs, unit.kernel * unit.kernel]);
        let c = self.take(rows * channels)?;
        self.steps.push(Step::Convolve { which, direction: Direction::Forward, x: x.at, w, y: c, add: false, shape });
        let (gamma, beta) = (At(self.weights.part(&place.gamma)), At(self.weights.part(&place.beta)));
        let moments = At(self.moments.part(&place.moments));
        let (saved, line) = (self.take(4 * channels)?, self.take(2 * channels)?);
        if self.purpose.training {
            let slices = self.slices(rows, channels);
            self.launch(Kernel::Moments, slices * channels, &[At(c), Sums], &[rows, channels, slices], None);
            let addresses = [Sums, At(c), gamma, beta, moments, At(saved), At(line)];
            self.launch(Kernel::Statistics, channels, &addresses, &[rows, channels, slices], Some(EPSILON));
        } else {
            let addresses = [gamma, beta, moments, At(saved), At(line)];
            self.launch(Kernel::FixedStatistics, channels, &addresses, &[channels], Some(EPSILON));
        }
        // Without a backward pass it is written over what it was made of.
        let out = if self.purpose.recorded { self.take(rows * channels)? } else { c };
        let summand = residual.map_or(Nothing, |map| At(map.at));
        let counts = [rows * channels, channels, usize::from(rectified)];
        self.launch(Kernel::Normalize, rows * channels, &[At(c), summand, At(out), At(line)], &counts, None);
        self.give(w);
        self.give(saved);
        self.give_back(line);
        Ok(Done { unit: *unit, place, which, x, w, c, y: y(out), rectified, saved })
    }

    /// Slices of a sum over rows, for which there will be room.
    fn slices(&mut self, rows: usize, channels: usize) -> usize {
        let slices = slices(rows, channels);
        // Two sums of eight bytes each.
        self.sums = self.sums.max(4 * slices * channels);
        slices
    }

    /// The pooled map, and where its values were.
    fn pool(&mut self, pool: Pool, x: Map) -> Result<(Map, Buffer)> {
        let (height, width, channels) = (pool.side(x.height), pool.side(x.width), x.channels);
        let count = self.purpose.images * height * width * channels;
        let (y, winners) = (self.take(count)?, self.take(count)?);
        let to = Map { at: y, height, width, channels };
        self.launch(Kernel::MaxPool, count, &[At(x.at), At(y), At(winners)], &Self::pooling(count, pool, x, to), None);
        self.give(x.at);
        self.give(winners);
        Ok((to, winners))
    }

    fn pooling(count: usize, pool: Pool, x: Map, y: Map) -> [usize; 9] {
        [count, x.height, x.width, x.channels, y.height, y.width, pool.kernel, pool.stride, pool.padding]
    }

    fn backward(
        &mut self,
        first: &Done,
        winners: Option<Buffer>,
        blocks: &[(Vec<Done>, Option<Done>)],
        last: Map,
        features: Buffer,
    ) -> Result<Backward> {
        let all = || std::iter::once(first).chain(blocks.iter().flat_map(|(units, shortcut)| units.iter().chain(shortcut)));
        // What the forward pass gave back lies between what it kept.
        let given = self.fresh(features.len)?;
        self.of_weights = self.fresh(self.weights.len)?;
        self.of_w = self.fresh(all().map(|unit| unit.w.len).max().unwrap_or(0))?;
        self.coefficients = self.fresh(4 * all().map(|unit| unit.unit.outputs).max().unwrap_or(0))?;
        let mut g = self.take(self.rows(last) * last.channels)?;
        let counts = [g.len, last.height * last.width, last.channels];
        self.launch(Kernel::MeanGradient, g.len, &[At(given), At(g)], &counts, None);
        for (units, shortcut) in blocks.iter().rev() {
            let Some((end, firsts)) = units.split_last() else { continue };
            // The residual gets what of the gradient the rectification lets through, the unit its own part of it.
            let own = self.take(g.len)?;
            self.through_norm(end, g, own, Some(g));
            let mut inner = own;
            if let Some(shortcut) = shortcut {
                self.through_norm(shortcut, g, g, None);
                self.of_weight(shortcut, g);
                let of_input = self.take(self.rows(shortcut.x) * shortcut.x.channels)?;
                self.of_input(shortcut, g, of_input, false);
                self.give_back(g);
                g = of_input;
            }
            self.of_weight(end, inner);
            for (unit, before) in units[1..].iter().zip(firsts).rev() {
                let of_input = self.take(self.rows(unit.x) * unit.x.channels)?;
                self.of_input(unit, inner, of_input, false);
                self.give_back(inner);
                inner = of_input;
                self.through_norm(before, inner, inner, None);
                self.of_weight(before, inner);
            }
            if let Some(start) = units.first() {
                self.of_input(start, inner, g, true);
            }
            self.give_back(inner);
        }
        if let (Some(pool), Some(winners)) = (self.purpose.network.pool, winners) {
            let (count, from) = (self.rows(first.y) * first.y.channels, blocks.first().and_then(|(units, _)| units.first()));
            let Some(pooled) = from.map(|unit| unit.x).or(Some(last)) else { unreachable!("`last` is there") };
            let of_input = self.take(count)?;
            let counts = Self::pooling(count, pool, first.y, pooled);
            self.launch(Kernel::MaxPoolGradient, count, &[At(g), At(winners), At(of_input)], &counts, None);
            self.give_back(g);
            g = of_input;
        }
        self.through_norm(first, g, g, None);
        self.of_weight(first, g);
        let of_images = if self.purpose.of_images {
            let count = self.rows(first.x) * first.x.channels;
            let (pixels, images) = (self.take(count)?, self.fresh(count)?);
            self.of_input(first, g, pixels, false);
            self.transpose(pixels, images, [self.purpose.images, first.x.height * first.x.width, first.x.channels]);
            Some(images)
        } else {
            None
        };
        Ok(Backward { given, of_weights: self.of_weights, of_images, steps: std::mem::take(&mut self.steps) })
    }

    /// Batch norm and rectification backward: from the gradient `g` of the output to that of the convolution's output, and what of
    /// `g` the rectification lets through to `passed`.
    fn through_norm(&mut self, done: &Done, g: Buffer, of_c: Buffer, passed: Option<Buffer>) {
        let (rows, channels) = (self.rows(done.y), done.unit.outputs);
        let slices = self.slices(rows, channels);
        let y = if done.rectified { At(done.y.at) } else { Nothing };
        let (c, saved, coefficients) = (At(done.c), At(done.saved), At(self.coefficients));
        self.launch(Kernel::GradientMoments, slices * channels, &[At(g), y, c, saved, Sums], &[rows, channels, slices], None);
        let [gamma, of_gamma, of_beta] = [
            self.weights.part(&done.place.gamma),
            self.of_weights.part(&done.place.gamma),
            self.of_weights.part(&done.place.beta),
        ]
        .map(At);
        let fixed = usize::from(!self.purpose.training);
        let addresses = [Sums, saved, gamma, of_gamma, of_beta, coefficients];
        self.launch(Kernel::GradientCoefficients, channels, &addresses, &[rows, channels, slices, fixed], None);
        let addresses = [At(g), y, c, coefficients, At(of_c), passed.map_or(Nothing, At)];
        self.launch(Kernel::InputGradient, rows * channels, &addresses, &[rows * channels, channels], None);
    }

    /// The gradient of a unit's weights, from that of its convolution's output.
    fn of_weight(&mut self, done: &Done, of_c: Buffer) {
        let (x, w) = (done.x.at, Buffer { len: done.w.len, ..self.of_w });
        let (which, direction) = (done.which, Direction::Weight);
        self.steps.push(Step::Convolve { which, direction, x, w, y: of_c, add: false, shape: done.shape() });
        let Unit { inputs, outputs, kernel, .. } = done.unit;
        self.transpose(w, self.of_weights.part(&done.place.weight), [outputs, kernel * kernel, inputs]);
    }

    /// The gradient of what a unit read.
    fn of_input(&mut self, done: &Done, of_c: Buffer, to: Buffer, add: bool) {
        let (which, direction) = (done.which, Direction::Input);
        self.steps.push(Step::Convolve { which, direction, x: to, w: done.w, y: of_c, add, shape: done.shape() });
    }
}
