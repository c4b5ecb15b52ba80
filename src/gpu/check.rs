//! Every kernel of a card beside plain loops of the processor: the memory of a plan before a step, after it, and as it should be.

use std::time::Duration;

use kinset_base::clock::Stopwatch;
use kinset_base::seed::Seed;

use super::card::{Card, Turn};
use super::convolution::Direction;
use super::error::Result;
use super::kernels::Kernel;
use super::network::{Block, Network, Pool, Unit};
use super::plan::{Argument, Buffer, Purpose, Step};
use super::session::Session;

/// How a kernel, or a direction of convolutions, did.
#[derive(Clone, Debug)]
pub struct Finding {
    pub name: String,
    /// How often it was run.
    pub runs: usize,
    /// The largest difference, as a share of the largest number that it should have written; infinite for one that is none, or where
    /// it changed what it must not.
    pub error: f64,
    /// Of all runs on the card, waited for one by one.
    pub time: Duration,
}

/// The largest error at which card and processor agree.
pub const AGREE: f64 = 1e-5;

impl Finding {
    pub fn agrees(&self) -> bool {
        self.error <= AGREE
    }
}

/// Runs networks that use every kernel, step by step, and compares each step with the processor.
///
/// # Errors
/// If the card fails.
pub fn check(card: &Card) -> Result<Vec<Finding>> {
    let mut findings: Vec<Finding> = Vec::new();
    for (network, images, side) in [(basic(), 4, 20), (bottleneck(), 3, 32)] {
        for training in [true, false] {
            let purpose = Purpose {
                network: network.clone(),
                images,
                height: side,
                width: side,
                training,
                recorded: true,
                of_images: true,
            };
            walk(card, &purpose, &mut findings)?;
        }
    }
    Ok(findings)
}

fn unit(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Unit {
    Unit { inputs, outputs, kernel, stride, padding: kernel / 2 }
}

/// Blocks of two units, as of ResNet-18 for small images.
fn basic() -> Network {
    let same = Block { units: vec![unit(16, 16, 3, 1), unit(16, 16, 3, 1)], shortcut: None };
    let half = Block { units: vec![unit(16, 24, 3, 2), unit(24, 24, 3, 1)], shortcut: Some(unit(16, 24, 1, 2)) };
    Network { first: unit(3, 16, 3, 1), pool: None, blocks: vec![same, half] }
}

/// Blocks of three, as of ResNet-50, and a pooling.
fn bottleneck() -> Network {
    let wide = Block { units: vec![unit(8, 8, 1, 1), unit(8, 8, 3, 2), unit(8, 32, 1, 1)], shortcut: Some(unit(8, 32, 1, 2)) };
    let pool = Some(Pool { kernel: 3, stride: 2, padding: 1 });
    Network { first: unit(3, 8, 7, 2), pool, blocks: vec![wide] }
}

/// Runs a plan forward and backward, on random numbers.
fn walk(card: &Card, purpose: &Purpose, findings: &mut Vec<Finding>) -> Result<()> {
    let turn = card.turn()?;
    let session = Session::new(&turn, purpose)?;
    let result = steps(&turn, &session, purpose.images, findings);
    session.free(card);
    result
}

fn steps(turn: &Turn<'_>, session: &Session, images: usize, findings: &mut Vec<Finding>) -> Result<()> {
    let plan = &session.plan;
    let Some(backward) = &plan.backward else { unreachable!("it is recorded") };
    let mut rng = Seed::new(1).rng();
    let mut memory = vec![0.0f32; plan.len];
    for (buffer, scale) in [(plan.images, 1.0), (plan.weights, 0.2), (backward.given, 1.0)] {
        memory[range(buffer)].fill_with(|| (scale * rng.normal()) as f32);
    }
    // Variances are positive, and means may be.
    memory[range(plan.moments)].fill_with(|| 0.2 + rng.normal().abs() as f32);
    turn.upload(&memory, session.base)?;
    for step in plan.forward.iter().chain(&backward.steps) {
        let watch = Stopwatch::start();
        session.run(turn, std::slice::from_ref(step))?;
        turn.wait()?;
        let time = watch.elapsed();
        let mut found = vec![0.0; plan.len];
        turn.download(session.base, &mut found)?;
        let written = perform(step, &mut memory, plan.sums, images);
        // Of cuDNN's own use.
        let workspace = range(plan.workspace);
        memory[workspace.clone()].copy_from_slice(&found[workspace]);
        note(findings, name(step), difference(&memory, &found, &written), time);
        // The next step begins with what the card has, so that each is judged by itself.
        memory = found;
    }
    Ok(())
}

fn note(findings: &mut Vec<Finding>, name: String, error: f64, time: Duration) {
    match findings.iter_mut().find(|finding| finding.name == name) {
        Some(finding) => {
            finding.runs += 1;
            finding.error = finding.error.max(error);
            finding.time += time;
        }
        None => findings.push(Finding { name, runs: 1, error, time }),
    }
}

fn name(step: &Step) -> String {
    match step {
        Step::Launch { kernel, .. } => kernel.name().to_owned(),
        Step::Convolve { direction: Direction::Forward, .. } => "convolution".into(),
        Step::Convolve { direction: Direction::Input, .. } => "convolution, gradient of input".into(),
        Step::Convolve { direction: Direction::Weight, .. } => "convolution, gradient of weight".into(),
    }
}

fn range(buffer: Buffer) -> std::ops::Range<usize> {
    buffer.start..buffer.start + buffer.len
}

/// What a step writes.
#[derive(Clone, Copy)]
enum Written {
    Floats(Buffer),
    /// Of eight bytes.
    Doubles(Buffer),
}

/// The largest difference within what was to be written, as a share of its largest number; infinite if anything else differs.
fn difference(wanted: &[f32], found: &[f32], written: &[Written]) -> f64 {
    let (mut most, mut free) = (0.0f64, vec![false; wanted.len()]);
    for part in written {
        let buffer = match *part {
            Written::Floats(buffer) | Written::Doubles(buffer) => buffer,
        };
        let numbers = |memory: &[f32]| -> Vec<f64> {
            let row = &memory[range(buffer)];
            match part {
                Written::Floats(_) => row.iter().copied().map(f64::from).collect(),
                Written::Doubles(_) => (0..row.len() / 2).map(|at| double(row, at)).collect(),
            }
        };
        free[range(buffer)].fill(true);
        let (wanted, found) = (numbers(wanted), numbers(found));
        let scale = wanted.iter().fold(1e-30f64, |most, v| most.max(v.abs()));
        for (wanted, found) in wanted.iter().zip(&found) {
            let off = (wanted - found).abs() / scale;
            most = if off.is_nan() { f64::INFINITY } else { most.max(off) };
        }
    }
    let same = wanted.iter().zip(found).zip(free).all(|((wanted, found), free)| free || wanted.to_bits() == found.to_bits());
    if same { most } else { f64::INFINITY }
}

/// The number of eight bytes at a place.
fn double(row: &[f32], at: usize) -> f64 {
    let [low, high] = [row[2 * at], row[2 * at + 1]].map(|half| u64::from(half.to_bits()));
    f64::from_bits(low | high << 32)
}

fn put_double(row: &mut [f32], at: usize, value: f64) {
    let bits = value.to_bits();
    row[2 * at] = f32::from_bits(bits as u32);
    row[2 * at + 1] = f32::from_bits((bits >> 32) as u32);
}

/// Arguments of a kernel, by place.
struct Arguments<'a> {
    all: &'a [Argument],
    sums: Buffer,
}

impl Arguments<'_> {
    fn at(&self, place: usize) -> Option<Buffer> {
        match self.all[place] {
            Argument::At(buffer) => Some(buffer),
            Argument::Sums => Some(self.sums),
            Argument::Nothing | Argument::Count(_) | Argument::Number(_) => None,
        }
    }

    /// One that is always there.
    fn buffer(&self, place: usize) -> Buffer {
        self.at(place).unwrap_or(self.sums)
    }

    fn count(&self, place: usize) -> usize {
        if let Argument::Count(count) = self.all[place] { count } else { 0 }
    }

    fn number(&self, place: usize) -> f64 {
        if let Argument::Number(number) = self.all[place] { f64::from(number) } else { 0.0 }
    }
}

/// Does on the processor what a step does, and says where its numbers may differ a little.
fn perform(step: &Step, memory: &mut [f32], sums: Buffer, images: usize) -> Vec<Written> {
    match step {
        Step::Launch { kernel, arguments, .. } => launch(*kernel, &Arguments { all: arguments, sums }, memory),
        Step::Convolve { direction, x, w, y, add, shape, .. } => {
            let to = match direction {
                Direction::Forward => *y,
                Direction::Input => *x,
                Direction::Weight => *w,
            };
            let mut made: Vec<f64> = memory[range(to)].iter().map(|old| if *add { f64::from(*old) } else { 0.0 }).collect();
            let row = |buffer: Buffer| memory[range(buffer)].iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
            let (from_x, from_w, from_y) = (row(*x), row(*w), row(*y));
            products(&shape.unit, [images, shape.height, shape.width], |x, w, y| match direction {
                Direction::Forward => made[y] += from_x[x] * from_w[w],
                Direction::Input => made[x] += from_w[w] * from_y[y],
                Direction::Weight => made[w] += from_x[x] * from_y[y],
            });
            memory[range(to)].iter_mut().zip(made).for_each(|(to, made)| *to = made as f32);
            vec![Written::Floats(to)]
        }
    }
}

/// All products of a convolution: the places of its three numbers in x `[B, H, W, C]`, w `[outputs, kernel, kernel, C]` and y.
fn products(unit: &Unit, [images, height, width]: [usize; 3], mut product: impl FnMut(usize, usize, usize)) {
    let &Unit { inputs, outputs, kernel, stride, padding } = unit;
    let (rows, columns) = (unit.side(height), unit.side(width));
    for (image, row, column) in places(images, rows, columns) {
        for (i, j) in (0..kernel).flat_map(|i| (0..kernel).map(move |j| (i, j))) {
            let (h, v) = (row * stride + i, column * stride + j);
            if h < padding || v < padding || h - padding >= height || v - padding >= width {
                continue;
            }
            let x = ((image * height + h - padding) * width + v - padding) * inputs;
            for output in 0..outputs {
                let w = ((output * kernel + i) * kernel + j) * inputs;
                let y = ((image * rows + row) * columns + column) * outputs + output;
                (0..inputs).for_each(|input| product(x + input, w + input, y));
            }
        }
    }
}

fn places(images: usize, rows: usize, columns: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..images).flat_map(move |image| (0..rows).flat_map(move |row| (0..columns).map(move |column| (image, row, column))))
}

/// Two sums of eight bytes per slice and channel, over the slice's rows, of what `terms` says of a place.
fn sum_slices(
    memory: &mut [f32],
    to: Buffer,
    [rows, channels, slices]: [usize; 3],
    terms: impl Fn(&[f32], usize, usize) -> [f64; 2],
) -> Vec<Written> {
    let to = Buffer { len: 4 * slices * channels, ..to };
    for slice in 0..slices {
        let mut sums = vec![[0.0; 2]; channels];
        for row in rows * slice / slices..rows * (slice + 1) / slices {
            for (channel, sums) in sums.iter_mut().enumerate() {
                let terms = terms(memory, row * channels + channel, channel);
                sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
        }
        for (channel, sums) in sums.iter().enumerate() {
            for (which, sum) in sums.iter().enumerate() {
                put_double(&mut memory[range(to)], (slice * 2 + which) * channels + channel, *sum);
            }
        }
    }
    vec![Written::Doubles(to)]
}

/// The slices' sums of a channel.
fn summed(memory: &[f32], from: Buffer, channel: usize, channels: usize, slices: usize) -> [f64; 2] {
    [0, 1].map(|which| (0..slices).map(|s| double(&memory[range(from)], (s * 2 + which) * channels + channel)).sum())
}

/// Mean, root and line of a batch norm.
fn lines(
    memory: &mut [f32],
    [gamma, beta, saved, line]: [Buffer; 4],
    epsilon: f64,
    statistics: impl Fn(&[f32], usize) -> [f64; 2],
) -> Vec<Written> {
    let channels = gamma.len;
    for channel in 0..channels {
        let [mean, variance] = statistics(memory, channel);
        let inverse = 1.0 / (variance + epsilon).sqrt();
        let scale = f64::from(memory[gamma.start + channel]) * inverse;
        put_double(&mut memory[range(saved)], channel, mean);
        put_double(&mut memory[range(saved)], channels + channel, inverse);
        memory[line.start + channel] = scale as f32;
        memory[line.start + channels + channel] = (f64::from(memory[beta.start + channel]) - mean * scale) as f32;
    }
    vec![Written::Doubles(saved), Written::Floats(line)]
}

/// The gradient that a rectification lets through.
fn masked(memory: &[f32], g: Buffer, y: Option<Buffer>, at: usize) -> f32 {
    if y.is_none_or(|y| memory[y.start + at] > 0.0) { memory[g.start + at] } else { 0.0 }
}

fn launch(kernel: Kernel, a: &Arguments<'_>, memory: &mut [f32]) -> Vec<Written> {
    match kernel {
        Kernel::Transpose => {
            let ([from, to], [batch, rows, columns]) = ([0, 1].map(|i| a.buffer(i)), [2, 3, 4].map(|i| a.count(i)));
            for (image, row, column) in places(batch, rows, columns) {
                memory[to.start + (image * columns + column) * rows + row] =
                    memory[from.start + (image * rows + row) * columns + column];
            }
            Vec::new()
        }
        Kernel::Moments => {
            let x = a.buffer(0).start;
            sum_slices(memory, a.buffer(1), [2, 3, 4].map(|i| a.count(i)), |memory, at, channel| {
                let v = f64::from(memory[x + at] - memory[x + channel]);
                [v, v * v]
            })
        }
        Kernel::Statistics => {
            let [part, x, gamma, beta, moments, saved, line] = [0, 1, 2, 3, 4, 5, 6].map(|i| a.buffer(i));
            let [rows, channels, slices] = [7, 8, 9].map(|i| a.count(i));
            let of = |memory: &[f32], channel: usize| {
                let [sum, square] = summed(memory, part, channel, channels, slices).map(|sum| sum / rows as f64);
                [f64::from(memory[x.start + channel]) + sum, (square - sum * sum).max(0.0)]
            };
            for channel in 0..channels {
                let [mean, variance] = of(memory, channel);
                memory[moments.start + channel] = mean as f32;
                memory[moments.start + channels + channel] = variance as f32;
            }
            let mut written = lines(memory, [gamma, beta, saved, line], a.number(10), of);
            written.push(Written::Floats(moments));
            written
        }
        Kernel::FixedStatistics => {
            let [gamma, beta, moments, saved, line] = [0, 1, 2, 3, 4].map(|i| a.buffer(i));
            let channels = a.count(5);
            lines(memory, [gamma, beta, saved, line], a.number(6), |memory, channel| {
                [channel, channels + channel].map(|at| f64::from(memory[moments.start + at]))
            })
        }
        Kernel::Normalize => {
            let ([x, y, line], residual) = ([0, 2, 3].map(|i| a.buffer(i)), a.at(1));
            let [count, channels, rectify] = [4, 5, 6].map(|i| a.count(i));
            for at in 0..count {
                let channel = at % channels;
                let mut v = memory[x.start + at] * memory[line.start + channel] + memory[line.start + channels + channel];
                v += residual.map_or(0.0, |residual| memory[residual.start + at]);
                memory[y.start + at] = if rectify == 1 && v < 0.0 { 0.0 } else { v };
            }
            vec![Written::Floats(y)]
        }
        Kernel::GradientMoments => {
            let ([g, x, saved], y) = ([0, 2, 3].map(|i| a.buffer(i)), a.at(1));
            sum_slices(memory, a.buffer(4), [5, 6, 7].map(|i| a.count(i)), |memory, at, channel| {
                let v = masked(memory, g, y, at);
                let center = double(&memory[range(saved)], channel) as f32;
                [f64::from(v), f64::from(v * (memory[x.start + at] - center))]
            })
        }
        Kernel::GradientCoefficients => {
            let [part, saved, gamma, of_gamma, of_beta, coefficients] = [0, 1, 2, 3, 4, 5].map(|i| a.buffer(i));
            let [rows, channels, slices, fixed] = [6, 7, 8, 9].map(|i| a.count(i));
            for channel in 0..channels {
                let [sum, product] = summed(memory, part, channel, channels, slices);
                let mean = double(&memory[range(saved)], channel);
                let inverse = double(&memory[range(saved)], channels + channel);
                let center = f64::from(mean as f32);
                let product = product + sum * (center - mean);
                let scale = f64::from(memory[gamma.start + channel]) * inverse;
                let of_x = -scale * inverse * inverse * product / rows as f64;
                let [of_x, constant] =
                    if fixed == 1 { [0.0; 2] } else { [of_x, -scale * sum / rows as f64 + of_x * (center - mean)] };
                memory[of_gamma.start + channel] = (product * inverse) as f32;
                memory[of_beta.start + channel] = sum as f32;
                for (which, value) in [scale, of_x, constant, center].into_iter().enumerate() {
                    memory[coefficients.start + which * channels + channel] = value as f32;
                }
            }
            vec![Written::Floats(of_gamma), Written::Floats(of_beta), Written::Floats(coefficients)]
        }
        Kernel::InputGradient => {
            let ([g, x, coefficients, of_x], y, passed) = ([0, 2, 3, 4].map(|i| a.buffer(i)), a.at(1), a.at(5));
            let [count, channels] = [6, 7].map(|i| a.count(i));
            for at in 0..count {
                let v = masked(memory, g, y, at);
                let [scale, by_x, constant, center] =
                    [0, 1, 2, 3].map(|which| memory[coefficients.start + which * channels + at % channels]);
                if let Some(passed) = passed {
                    memory[passed.start + at] = v;
                }
                memory[of_x.start + at] = scale * v + (by_x * (memory[x.start + at] - center) + constant);
            }
            vec![Written::Floats(of_x)]
        }
        Kernel::MaxPool | Kernel::MaxPoolGradient => {
            let [first, second, third] = [0, 1, 2].map(|i| a.buffer(i));
            let forward = kernel == Kernel::MaxPool;
            let [_, height, width, channels, rows, columns, window, stride, padding] =
                [3, 4, 5, 6, 7, 8, 9, 10, 11].map(|i| a.count(i));
            let images = if forward { first.len } else { third.len } / (height * width * channels);
            if !forward {
                memory[range(third)].fill(0.0);
            }
            for ((image, row, column), channel) in
                places(images, rows, columns).flat_map(|place| (0..channels).map(move |channel| (place, channel)))
            {
                let at = ((image * rows + row) * columns + column) * channels + channel;
                let pixel = |place: usize| (image * height * width + place) * channels + channel;
                if !forward {
                    let winner = memory[second.start + at].to_bits() as usize;
                    memory[third.start + pixel(winner)] += memory[first.start + at];
                    continue;
                }
                let within =
                    |o: usize, side: usize| (o * stride).saturating_sub(padding)..(o * stride + window - padding).min(side);
                let mut best: Option<(usize, f32)> = None;
                for (h, w) in within(row, height).flat_map(|h| within(column, width).map(move |w| (h, w))) {
                    let v = memory[first.start + pixel(h * width + w)];
                    if best.is_none_or(|(_, most)| v > most || v.is_nan()) {
                        best = Some((h * width + w, v));
                    }
                }
                let (winner, most) = best.unwrap_or_default();
                memory[second.start + at] = most;
                memory[third.start + at] = f32::from_bits(winner as u32);
            }
            if forward { Vec::new() } else { vec![Written::Floats(third)] }
        }
        Kernel::Mean | Kernel::MeanGradient => {
            let ([from, to], [count, map, channels]) = ([0, 1].map(|i| a.buffer(i)), [2, 3, 4].map(|i| a.count(i)));
            for at in 0..count {
                memory[to.start + at] = if kernel == Kernel::Mean {
                    let pixel = |pixel: usize| memory[from.start + (at / channels * map + pixel) * channels + at % channels];
                    ((0..map).map(|i| f64::from(pixel(i))).sum::<f64>() / map as f64) as f32
                } else {
                    memory[from.start + at / channels / map * channels + at % channels] / map as f32
                };
            }
            vec![Written::Floats(to)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::KERNELS;
    use super::super::testing::open;
    use super::*;

    #[test]
    fn every_kernel_agrees_with_the_processor_and_none_goes_unchecked() {
        let Some(card) = open(&[]) else { return };
        let findings = check(card).unwrap();
        for finding in &findings {
            assert!(finding.agrees(), "{finding:?}");
        }
        for kernel in KERNELS {
            assert!(findings.iter().any(|finding| finding.name == kernel.name()), "{kernel:?}");
        }
        assert_eq!(findings.len(), KERNELS.len() + 3);
    }

    #[test]
    fn what_is_wrong_is_found_wherever_it_is() {
        let written = [Written::Floats(Buffer { start: 1, len: 2 }), Written::Doubles(Buffer { start: 4, len: 2 })];
        let mut wanted = vec![7.0, 1.0, 2.0, 8.0, 0.0, 0.0];
        put_double(&mut wanted[4..], 0, 3.0);
        let off = |change: &dyn Fn(&mut Vec<f32>)| {
            let mut found = wanted.clone();
            change(&mut found);
            difference(&wanted, &found, &written)
        };
        assert!(off(&|_| {}) <= 0.0);
        assert!((off(&|found| found[1] = 1.1) - 0.05).abs() < 1e-6);
        assert!((off(&|found| put_double(&mut found[4..], 0, 3.3)) - 0.1).abs() < 1e-6);
        assert!(off(&|found| found[2] = f32::NAN).is_infinite());
        assert!(off(&|found| found[3] = 8.000_001).is_infinite(), "not its own");
    }
}
