//! One convolution by cuDNN: shapes, and an algorithm for each direction that gives equal bytes for equal inputs.

#![expect(unsafe_code, reason = "calls functions of cuDNN")]

use super::card::{Card, Turn};
use super::cudnn::{Algorithm, CROSS_CORRELATION, FLOAT, FMA_MATH, NHWC, done};
use super::error::{GpuError, Result};
use super::network::Unit;

/// What is computed from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// y from x and w.
    Forward,
    /// The gradient of x from w and that of y.
    Input,
    /// The gradient of w from x and that of y.
    Weight,
}

/// A convolution of `[B, H, W, C]` with weights `[outputs, kernel, kernel, inputs]`, f32, whose products are not shortened.
#[derive(Debug)]
pub(crate) struct Convolution {
    x: usize,
    y: usize,
    w: usize,
    itself: usize,
    /// By direction: the algorithm's number, and the bytes of workspace that it wants.
    chosen: [(i32, usize); 3],
}

/// Algorithms that cuDNN is asked to name: more than it has.
const ASKED: usize = 10;
/// An algorithm that wants more workspace is not chosen: it would not be worth the smaller batch. Bytes.
const LARGEST: usize = 1 << 30;

impl Convolution {
    /// # Errors
    /// [`GpuError::NoAlgorithm`]; whatever cuDNN says.
    pub(crate) fn new(turn: &Turn<'_>, unit: &Unit, [batch, height, width]: [usize; 3]) -> Result<Self> {
        let mut made = Self { x: 0, y: 0, w: 0, itself: 0, chosen: [(0, 0); 3] };
        match made.describe(turn.card, unit, [batch, height, width]) {
            Ok(()) => Ok(made),
            Err(error) => {
                made.destroy(turn.card);
                Err(error)
            }
        }
    }

    fn describe(&mut self, card: &Card, unit: &Unit, [batch, height, width]: [usize; 3]) -> Result<()> {
        let dnn = &card.cudnn;
        let number = |count: usize| count as i32;
        let &Unit { inputs, outputs, kernel, stride, padding } = unit;
        // SAFETY, of all blocks here: descriptors are written to where the pointers show, and used only once they are.
        for (at, channels, height, width) in
            [(&mut self.x, inputs, height, width), (&mut self.y, outputs, unit.side(height), unit.side(width))]
        {
            // SAFETY: as above.
            done("cudnnCreateTensorDescriptor", unsafe { (dnn.cudnnCreateTensorDescriptor)(at) })?;
            let [n, c, h, w] = [batch, channels, height, width].map(number);
            // SAFETY: as above.
            let code = unsafe { (dnn.cudnnSetTensor4dDescriptor)(*at, NHWC, FLOAT, n, c, h, w) };
            done("cudnnSetTensor4dDescriptor", code)?;
        }
        // SAFETY: as above.
        done("cudnnCreateFilterDescriptor", unsafe { (dnn.cudnnCreateFilterDescriptor)(&raw mut self.w) })?;
        let [k, c, side] = [outputs, inputs, kernel].map(number);
        // SAFETY: as above.
        let code = unsafe { (dnn.cudnnSetFilter4dDescriptor)(self.w, FLOAT, NHWC, k, c, side, side) };
        done("cudnnSetFilter4dDescriptor", code)?;
        // SAFETY: as above.
        let code = unsafe { (dnn.cudnnCreateConvolutionDescriptor)(&raw mut self.itself) };
        done("cudnnCreateConvolutionDescriptor", code)?;
        let [padding, stride] = [padding, stride].map(number);
        // SAFETY: as above.
        let code = unsafe {
            (dnn.cudnnSetConvolution2dDescriptor)(self.itself, padding, padding, stride, stride, 1, 1, CROSS_CORRELATION, FLOAT)
        };
        done("cudnnSetConvolution2dDescriptor", code)?;
        // SAFETY: as above.
        let code = unsafe { (dnn.cudnnSetConvolutionMathType)(self.itself, FMA_MATH) };
        done("cudnnSetConvolutionMathType", code)?;
        for (at, direction) in [Direction::Forward, Direction::Input, Direction::Weight].into_iter().enumerate() {
            self.chosen[at] = self.algorithm(card, direction, || {
                format!(
                    "{direction:?} of {batch} x {height} x {width} x {inputs} by {outputs} kernels of {kernel}, stride {stride}"
                )
            })?;
        }
        Ok(())
    }

    /// The first that cuDNN names, best first by its own estimate, which measures nothing, that is reproducible.
    fn algorithm(&self, card: &Card, direction: Direction, what: impl FnOnce() -> String) -> Result<(i32, usize)> {
        let (dnn, handle) = (&card.cudnn, card.handle);
        let &Self { x, y, w, itself, .. } = self;
        let (mut found, mut results) = (0, [Algorithm::default(); ASKED]);
        let (count, out, asked) = (&raw mut found, results.as_mut_ptr(), ASKED as i32);
        // SAFETY: the descriptors are set; at most so many results are written as are asked for.
        let code = unsafe {
            match direction {
                Direction::Forward => (dnn.cudnnGetConvolutionForwardAlgorithm_v7)(handle, x, w, itself, y, asked, count, out),
                Direction::Input => {
                    (dnn.cudnnGetConvolutionBackwardDataAlgorithm_v7)(handle, w, y, itself, x, asked, count, out)
                }
                Direction::Weight => {
                    (dnn.cudnnGetConvolutionBackwardFilterAlgorithm_v7)(handle, x, y, itself, w, asked, count, out)
                }
            }
        };
        done("cudnnGetConvolutionAlgorithm_v7", code)?;
        for result in results.iter().take(found as usize).filter(|result| result.status == 0 && result.reproducible == 1) {
            let (number, mut bytes) = (result.number, 0);
            let size = &raw mut bytes;
            // SAFETY: it writes one number to where the pointer shows.
            let code = unsafe {
                match direction {
                    Direction::Forward => (dnn.cudnnGetConvolutionForwardWorkspaceSize)(handle, x, w, itself, y, number, size),
                    Direction::Input => {
                        (dnn.cudnnGetConvolutionBackwardDataWorkspaceSize)(handle, w, y, itself, x, number, size)
                    }
                    Direction::Weight => {
                        (dnn.cudnnGetConvolutionBackwardFilterWorkspaceSize)(handle, x, y, itself, w, number, size)
                    }
                }
            };
            if code == 0 && bytes <= LARGEST {
                return Ok((number, bytes));
            }
        }
        Err(GpuError::NoAlgorithm { what: what() })
    }

    /// Bytes of workspace that all directions fit into.
    pub(crate) fn workspace(&self) -> usize {
        self.chosen.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }

    /// Starts one direction. The addresses are those of x, w and y or of their gradients; what is computed is written, or added to
    /// what is there if `add`.
    pub(crate) fn start(
        &self,
        turn: &Turn<'_>,
        direction: Direction,
        [x_at, w_at, y_at]: [u64; 3],
        workspace: u64,
        add: bool,
    ) -> Result<()> {
        let (dnn, handle) = (&turn.card.cudnn, turn.card.handle);
        let &Self { x, y, w, itself, .. } = self;
        let (algorithm, bytes) = self.chosen[direction as usize];
        let (one, old) = (1.0f32, if add { 1.0f32 } else { 0.0 });
        let (alpha, beta) = (&raw const one, &raw const old);
        // SAFETY: the addresses are of buffers as large as the descriptors say, the workspace of as many bytes as the algorithm wants
        // (`Plan`); the factors are read before the call returns.
        let code = unsafe {
            match direction {
                Direction::Forward => (dnn.cudnnConvolutionForward)(
                    handle, alpha, x, x_at, w, w_at, itself, algorithm, workspace, bytes, beta, y, y_at,
                ),
                Direction::Input => (dnn.cudnnConvolutionBackwardData)(
                    handle, alpha, w, w_at, y, y_at, itself, algorithm, workspace, bytes, beta, x, x_at,
                ),
                Direction::Weight => (dnn.cudnnConvolutionBackwardFilter)(
                    handle, alpha, x, x_at, y, y_at, itself, algorithm, workspace, bytes, beta, w, w_at,
                ),
            }
        };
        let call = match direction {
            Direction::Forward => "cudnnConvolutionForward",
            Direction::Input => "cudnnConvolutionBackwardData",
            Direction::Weight => "cudnnConvolutionBackwardFilter",
        };
        done(call, code)
    }

    /// Gives the descriptors back.
    pub(crate) fn destroy(&self, card: &Card) {
        let dnn = &card.cudnn;
        // SAFETY: each descriptor was got, is given back once and is not used after; zero stands for none.
        unsafe {
            for tensor in [self.x, self.y].into_iter().filter(|tensor| *tensor != 0) {
                (dnn.cudnnDestroyTensorDescriptor)(tensor);
            }
            if self.w != 0 {
                (dnn.cudnnDestroyFilterDescriptor)(self.w);
            }
            if self.itself != 0 {
                (dnn.cudnnDestroyConvolutionDescriptor)(self.itself);
            }
        }
    }
}
