//! Autograd of this crate's operations inside candle's graph, without candle adding each gradient to a tensor of zeros.
//!
//! Candle's backward pass does, for every edge of the graph, "make zeros of the input's size, add the gradient, keep the sum":
//! three full passes over memory that no gradient needs when it is the only one. For small networks that costs as much as the
//! arithmetic. So the candle graph of our operations is built over *tokens* of one number each, which keeps candle's order of
//! evaluation, while the gradients themselves lie in *slots*: the consumer moves (or adds in place) its gradient into the slot
//! of its input, the producer takes it out and may reuse the memory.
//!
//! ```text
//! tensors:   x ─────────────── y = conv(x, w) ──────── z = relu(y)
//! candle:    enter(x) → [t_x] → op(t_x, w) → [t_y] → op(t_y) → [t_z] → exit(t_z) = z
//! gradients:         slot x                 slot y            slot z
//! ```
//!
//! `enter` leads from candle's graph into ours (backwards it hands the slot's content to candle), `exit` leads back (backwards
//! it puts candle's gradient into the slot). Any candle operation may use a result too; both gradients meet in the slot.
//!
//! The next operation finds the token of a result by the tensor's id in a table, the only global state of this crate besides
//! the allocator and the choice of the instruction set. It is one for the process, behind a lock, because tensors move between
//! threads; an entry lives as long as its tensor, so the table is empty when no recorded result is alive. Ids are never used
//! twice, so graphs of different threads do not meet in it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, TensorId,
};

use super::accumulate::accumulate;
use super::error::KernelError;

/// Where the gradient of one tensor is gathered.
#[derive(Default)]
pub(super) struct GradSlot(Mutex<Option<Vec<f32>>>);

impl GradSlot {
    /// Adds a gradient, by moving it in if it is the first.
    pub(super) fn add(&self, gradient: Vec<f32>) {
        let mut content = lock(&self.0);
        match content.as_mut() {
            None => *content = Some(gradient),
            Some(sum) => accumulate(sum, &gradient),
        }
    }

    /// What was added so far; the slot is empty afterwards.
    pub(super) fn take(&self) -> Option<Vec<f32>> {
        lock(&self.0).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A result in the graph: the token that candle orders, the slot the gradient goes to.
#[derive(Clone)]
struct Node {
    token: Tensor,
    slot: Arc<GradSlot>,
}

/// Tensors made by our operations that are still alive. Short: one entry per activation of the running step.
static NODES: Mutex<Vec<(TensorId, Node)>> = Mutex::new(Vec::new());

/// An activation as an operation sees it: its numbers, and where its gradient is wanted, if it is.
pub(super) struct Input {
    /// Contiguous f32 on the CPU, outside of any graph.
    pub(super) data: Tensor,
    node: Option<Node>,
}

impl Input {
    /// Looks a tensor up, or lets it enter if candle made it.
    pub(super) fn of(x: &Tensor) -> Result<Self> {
        let node = if x.track_op() { Some(node_of(x)?) } else { None };
        Ok(Self { data: x.detach().contiguous()?, node })
    }

    /// Where the gradient goes; `None` if nobody asks for it (the images themselves, frozen layers).
    pub(super) fn slot(&self) -> Option<Arc<GradSlot>> {
        self.node.as_ref().map(|node| node.slot.clone())
    }
}

fn node_of(x: &Tensor) -> Result<Node> {
    if let Some((_, node)) = lock(&NODES).iter().find(|(id, _)| *id == x.id()) {
        return Ok(node.clone());
    }
    let slot = Arc::new(GradSlot::default());
    let token = x.apply_op1(Enter(slot.clone()))?;
    Ok(Node { token, slot })
}

pub(super) trait Backward: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// Does the gradient need the output's numbers? Then they are kept alive.
    fn keeps_output(&self) -> bool {
        false
    }

    /// Takes the gradient of the output, puts those of the activations into their slots and returns those of the parameters,
    /// one entry per parameter.
    fn backward(&self, gradient: Vec<f32>, saved: Saved<'_>) -> Result<[Option<Tensor>; 2]>;
}

/// What a backward pass may look at.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) parameters: [Option<&'a Tensor>; 2],
    /// There if [`Backward::keeps_output`].
    pub(super) output: Option<&'a Tensor>,
}

/// Makes the tensor of a result: `data` of `shape`, computed from `inputs` and `parameters`. `backward` is asked for only if a
/// gradient can be wanted.
pub(super) fn record<R: Backward>(
    data: Vec<f32>,
    shape: impl Into<Shape>,
    inputs: &[&Input],
    parameters: [Option<&Tensor>; 2],
    backward: impl FnOnce() -> R,
) -> Result<Tensor> {
    let shape = shape.into();
    let mut tokens = inputs.iter().filter_map(|input| input.node.as_ref().map(|node| node.token.clone()));
    let wanted = parameters.iter().flatten().any(|p| p.track_op());
    let token = match (tokens.next(), tokens.next()) {
        (None, _) if !wanted => return Tensor::from_vec(data, shape, &Device::Cpu),
        (None, _) => Tensor::zeros(1, DType::F32, &Device::Cpu)?,
        (Some(one), None) => one,
        (Some(one), Some(other)) => one.apply_op2(&other, Join)?,
    };
    let slot = Arc::new(GradSlot::default());
    let backward = backward();
    let kept = backward.keeps_output().then(|| Arc::new(OnceLock::new()));
    let op = Op { backward, slot: slot.clone(), output: kept.clone() };
    let token = match parameters {
        [Some(p), Some(q)] => token.apply_op3(p, q, op)?,
        [Some(p), None] | [None, Some(p)] => token.apply_op2(p, op)?,
        [None, None] => token.apply_op1(op)?,
    };
    let output = token.apply_op1(Exit { data: Mutex::new(Some(data)), shape, slot: slot.clone() })?;
    if let Some(kept) = kept {
        // Detached, so the op does not own its own successor.
        let _first = kept.set(output.detach());
    }
    lock(&NODES).push((output.id(), Node { token, slot }));
    Ok(output)
}

fn token_storage() -> (CpuStorage, Shape) {
    (CpuStorage::F32(vec![0.0]), Shape::from(1))
}

fn token_gradient() -> Result<Tensor> {
    Tensor::zeros(1, DType::F32, &Device::Cpu)
}

struct Op<R> {
    backward: R,
    slot: Arc<GradSlot>,
    output: Option<Arc<OnceLock<Tensor>>>,
}

impl<R: Backward> Op<R> {
    fn run(&self, parameters: [Option<&Tensor>; 2]) -> Result<[Option<Tensor>; 2]> {
        let gradient = self.slot.take().ok_or_else(|| KernelError::NoGradient { op: self.backward.name() }.wrap())?;
        self.backward.backward(gradient, Saved { parameters, output: self.output.as_ref().and_then(|cell| cell.get()) })
    }
}

impl<R: Backward> CustomOp1 for Op<R> {
    fn name(&self) -> &'static str {
        self.backward.name()
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(token_storage())
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        self.run([None, None])?;
        Ok(Some(token_gradient()?))
    }
}

impl<R: Backward> CustomOp2 for Op<R> {
    fn name(&self) -> &'static str {
        self.backward.name()
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(token_storage())
    }
    fn bwd(&self, _: &Tensor, p: &Tensor, _: &Tensor, _: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [p, _] = self.run([Some(p), None])?;
        Ok((Some(token_gradient()?), p))
    }
}

impl<R: Backward> CustomOp3 for Op<R> {
    fn name(&self) -> &'static str {
        self.backward.name()
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(token_storage())
    }
    fn bwd(
        &self,
        _: &Tensor,
        p: &Tensor,
        q: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [p, q] = self.run([Some(p), Some(q)])?;
        Ok((Some(token_gradient()?), p, q))
    }
}

/// Two activations, one token.
struct Join;

impl CustomOp2 for Join {
    fn name(&self) -> &'static str {
        "join"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(token_storage())
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(token_gradient()?), Some(token_gradient()?)))
    }
}

/// The way from candle's graph into ours.
struct Enter(Arc<GradSlot>);

impl CustomOp1 for Enter {
    fn name(&self) -> &'static str {
        "enter"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(token_storage())
    }
    fn bwd(&self, arg: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        let gradient = self.0.take().ok_or_else(|| KernelError::NoGradient { op: "enter" }.wrap())?;
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), &Device::Cpu)?))
    }
}

/// The way back to candle's graph.
struct Exit {
    data: Mutex<Option<Vec<f32>>>,
    shape: Shape,
    slot: Arc<GradSlot>,
}

impl CustomOp1 for Exit {
    fn name(&self) -> &'static str {
        "exit"
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let data = lock(&self.data).take().ok_or_else(|| KernelError::NotFloats { op: "exit" }.wrap())?;
        Ok((CpuStorage::F32(data), self.shape.clone()))
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.slot.add(gradient.flatten_all()?.to_vec1()?);
        Ok(Some(token_gradient()?))
    }
}

impl Drop for Exit {
    /// The tensor is gone: forget its id.
    fn drop(&mut self) {
        let mut nodes = lock(&NODES);
        let entry = nodes.iter().position(|(_, node)| Arc::ptr_eq(&node.slot, &self.slot)).map(|at| nodes.swap_remove(at));
        drop(nodes);
        // Only now: what hangs on the token may be large, and must not be freed under the lock.
        drop(entry);
    }
}

/// Can the CPU kernels take these tensors?
pub(super) fn supported(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| t.device().is_cpu() && t.dtype() == DType::F32)
}

/// Lends the numbers of a contiguous f32 tensor.
pub(super) fn read<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(numbers)), Some((start, end))) => Ok(f(&numbers[start..end])),
        _ => Err(KernelError::NotFloats { op: "read" }.wrap()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{distance, doubles, normal, run, same_bits};
    use super::super::{After, add_relu, batch_norm, conv2d, global_avg_pool, l2_normalize, relu};
    use super::*;
    use candle_core::Var;

    /// A residual block with a projection, our operations mixed with candle's on the way.
    fn block(t: &[Tensor], ours: bool) -> Result<Tensor> {
        let [x, w1, w2, w3, gamma, beta] = t else { unreachable!() };
        let (x, w1, w2, w3, gamma, beta) = (x, w1, w2, w3, gamma, beta);
        if ours {
            let shortcut = conv2d(x, w3, 2, 0)?;
            let h = batch_norm(&conv2d(x, w1, 2, 1)?, gamma, beta, 1e-5, After::Relu)?.output;
            // Candle's own operation between two of ours, and one more consumer of `h`.
            let scaled = (&h * 0.5)?;
            let h = conv2d(&(scaled + &h)?, w2, 1, 1)?;
            let out = batch_norm(&h, gamma, beta, 1e-5, After::AddRelu(&shortcut))?.output;
            let out = relu(&add_relu(&out, &h)?)?;
            return l2_normalize(&global_avg_pool(&out)?);
        }
        let wide: Vec<Tensor> = t.iter().map(|t| t.to_dtype(DType::F64)).collect::<Result<_>>()?;
        block_wide(&wide)
    }

    fn block_wide(t: &[Tensor]) -> Result<Tensor> {
        block(t, true)
    }

    fn inputs() -> Vec<Tensor> {
        let dims: [&[usize]; 6] = [&[3, 4, 6, 6], &[5, 4, 3, 3], &[5, 5, 3, 3], &[5, 4, 1, 1], &[5], &[5]];
        dims.iter().enumerate().map(|(i, dims)| normal(&format!("block {i}"), dims)).collect()
    }

    #[test]
    fn a_block_of_mixed_operations_has_the_gradients_of_candle_in_f64() {
        let inputs = inputs();
        let (y, gradients) = run(&|t| block(t, true), &inputs);
        let (wide, expected) = run(&|t| block(t, false), &inputs);
        assert!(distance(&doubles(&y), &doubles(&wide)) < 1e-5);
        for (which, (got, expected)) in gradients.iter().zip(&expected).enumerate() {
            let off = distance(&doubles(got), &doubles(expected));
            assert!(off < 1e-4, "input {which}: {off}");
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        same_bits("block", &|t| block(t, true), &inputs());
    }

    #[test]
    fn dropped_activations_are_forgotten() {
        // Other tests run beside this one and come and go, so look for our own ids.
        let x = Var::from_tensor(&normal("x", &[2, 3])).unwrap();
        let y = relu(x.as_tensor()).unwrap();
        let z = relu(&y).unwrap();
        let known = |id: TensorId| lock(&NODES).iter().any(|(other, _)| *other == id);
        let (y_id, z_id) = (y.id(), z.id());
        assert!(known(y_id) && known(z_id));
        drop(y);
        assert!(!known(y_id) && known(z_id), "an activation is forgotten although its consumer lives");
        let gradients = z.sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(x.as_tensor()).is_some());
        drop(z);
        assert!(!known(z_id));
    }

    #[test]
    fn two_backward_passes_over_one_graph_give_the_same_gradient() {
        let x = Var::from_tensor(&normal("x", &[4, 5])).unwrap();
        let y = relu(x.as_tensor()).unwrap();
        let once = y.sum_all().unwrap().backward().unwrap();
        let twice = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(doubles(once.get(x.as_tensor()).unwrap()), doubles(twice.get(x.as_tensor()).unwrap()));
    }

    #[test]
    fn without_variables_no_graph_is_built() {
        let y = relu(&normal("x", &[4, 5])).unwrap();
        assert!(!y.track_op());
        let w = normal("w", &[2, 3, 3, 3]);
        let y = conv2d(&normal("image", &[1, 3, 5, 5]), &w, 1, 1).unwrap();
        assert!(!y.track_op());
    }

    #[test]
    fn a_detached_activation_stops_the_gradient() {
        let x = Var::from_tensor(&normal("x", &[4, 5])).unwrap();
        let y = relu(x.as_tensor()).unwrap();
        let z = (relu(&y.detach()).unwrap() + &y).unwrap();
        let gradients = z.sum_all().unwrap().backward().unwrap();
        let expected: Vec<f64> = doubles(x.as_tensor()).iter().map(|v| if *v > 0.0 { 1.0 } else { 0.0 }).collect();
        assert_eq!(doubles(gradients.get(x.as_tensor()).unwrap()), expected);
    }
}
