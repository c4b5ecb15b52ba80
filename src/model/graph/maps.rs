//! Operators of maps `[B, C, H, W]`: convolution, batch norm, pooling, interpolation.

use candle_core::Tensor;

use super::inputs::{Inputs, Step, sides, small, spatial, stuck};
use crate::positions::keys;
use kinset_artifact::graph::Node;
use kinset_kernel::{After, batch_norm_eval, conv2d, depthwise_conv2d, max_pool2d, scale_shift};

/// Numbers of rows and columns that a window begins outside: top, left, bottom, right.
fn padding(node: &Node, [height, width]: [usize; 2], kernel: [usize; 2], stride: usize) -> Step<[usize; 4]> {
    match node.text("auto_pad").unwrap_or("NOTSET") {
        "NOTSET" => {}
        "VALID" => return Ok([0; 4]),
        how @ ("SAME_UPPER" | "SAME_LOWER") => {
            let all = [0, 1].map(|at| {
                let side = [height, width][at];
                (side.div_ceil(stride) * stride + kernel[at]).saturating_sub(stride).saturating_sub(side)
            });
            let [before, after] = if how == "SAME_UPPER" {
                [all.map(|n| n / 2), all.map(|n| n.div_ceil(2))]
            } else {
                [all.map(|n| n.div_ceil(2)), all.map(|n| n / 2)]
            };
            return Ok([before[0], before[1], after[0], after[1]]);
        }
        other => return stuck(format!("there is no padding `{other}`")),
    }
    match node.ints("pads") {
        None => Ok([0; 4]),
        Some(pads) => {
            let pads = sides(pads)?;
            <[usize; 4]>::try_from(pads).or_else(|pads| stuck(format!("it pads {} sides, and maps have 4", pads.len())))
        }
    }
}

/// The one number that both axes have.
fn both(node: &Node, name: &str) -> Step<usize> {
    match node.ints(name) {
        None => Ok(1),
        Some(&[a, b]) if a == b && a > 0 => Ok(a as usize),
        Some(other) => stuck(format!("`{name}` is {other:?}, and both must be one number above 0")),
    }
}

fn padded(x: &Tensor, [top, left, bottom, right]: [usize; 4]) -> Step<Tensor> {
    if top + left + bottom + right == 0 {
        return Ok(x.clone());
    }
    Ok(x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?.contiguous()?)
}

pub(super) fn convolution(node: &Node, inputs: &Inputs<'_>) -> Step<Tensor> {
    let (x, w) = (spatial(inputs.at(0)?)?, spatial(inputs.at(1)?)?);
    let (_, channels, height, width) = x.dims4()?;
    let (outputs, each, kernel, across) = w.dims4()?;
    let (stride, dilation) = (both(node, "strides")?, both(node, "dilations")?);
    let groups = node.int("group").unwrap_or(1).max(1) as usize;
    if each * groups != channels || !outputs.is_multiple_of(groups) {
        return stuck(format!("weights {:?} in {groups} groups do not fit maps {:?}", w.dims(), x.dims()));
    }
    let window = [kernel, across].map(|side| side.saturating_sub(1) * dilation + 1);
    let pads = padding(node, [height, width], window, stride)?;
    small(x.elem_count() / (height * width).max(1) * (height + pads[0] + pads[2]) * (width + pads[1] + pads[3]))?;
    if height + pads[0] + pads[2] < window[0] || width + pads[1] + pads[3] < window[1] {
        return stuck(format!("its window {window:?} is larger than maps {:?}", x.dims()));
    }
    let even = pads.iter().all(|&pad| pad == pads[0]);
    let y = if groups == 1 && kernel == across && dilation == 1 && even {
        conv2d(x, w, stride, pads[0])?
    } else if groups == channels && each == 1 && outputs == channels && kernel == across && dilation == 1 {
        depthwise_conv2d(&padded(x, pads)?, w, stride)?
    } else {
        let (padding, x) = if even { (pads[0], x.clone()) } else { (0, padded(x, pads)?) };
        if groups == 1 && kernel == across && dilation == 1 {
            conv2d(&x, w, stride, padding)?
        } else {
            x.conv2d(w, padding, stride, dilation, groups)?
        }
    };
    match inputs.get(2) {
        None => Ok(y),
        Some(bias) => Ok(scale_shift(&y, &bias.ones_like()?, bias, After::Nothing)?),
    }
}

pub(super) fn batch_norm(node: &Node, inputs: &Inputs<'_>) -> Step<Tensor> {
    let x = inputs.at(0)?;
    let [scale, bias, mean, variance] = [inputs.at(1)?, inputs.at(2)?, inputs.at(3)?, inputs.at(4)?];
    let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
    if x.rank() == 4 {
        return Ok(batch_norm_eval(x, scale, bias, mean, variance, epsilon, After::Nothing)?);
    }
    if x.rank() != 2 {
        return stuck(format!("it takes maps or rows, not {:?}", x.dims()));
    }
    let root = (variance + epsilon)?.sqrt()?;
    Ok(x.broadcast_sub(mean)?.broadcast_div(&root)?.broadcast_mul(scale)?.broadcast_add(bias)?)
}

pub(super) fn pool(node: &Node, x: &Tensor) -> Step<Tensor> {
    let (_, _, height, width) = spatial(x)?.dims4()?;
    let (kernel, stride) = (both(node, "kernel_shape")?, both(node, "strides")?);
    let mut pads = padding(node, [height, width], [kernel; 2], stride)?;
    if both(node, "dilations")? != 1 {
        return stuck("its windows have holes");
    }
    if node.int("ceil_mode").unwrap_or(0) != 0 {
        for (pad, side, before) in [(2, height, 0), (3, width, 1)] {
            let rest = (side + pads[before] + pads[pad]).saturating_sub(kernel) % stride;
            if rest != 0 {
                return stuck("its last window reaches beyond the padding (`ceil_mode`)");
            }
        }
    }
    let even = pads.iter().all(|&pad| pad == pads[0]);
    if node.operator == "MaxPool" && even {
        return Ok(max_pool2d(x, kernel, stride, pads[0])?);
    }
    let fill = if node.operator == "MaxPool" { f64::from(f32::MIN) } else { 0.0 };
    let all = around(x, pads, fill)?;
    if node.operator == "MaxPool" {
        return Ok(max_pool2d(&all, kernel, stride, 0)?);
    }
    let mean = all.avg_pool2d_with_stride(kernel, stride)?;
    if node.int("count_include_pad").unwrap_or(0) != 0 {
        pads = [0; 4];
    }
    if pads == [0; 4] {
        return Ok(mean);
    }
    // A window is divided by the pixels that it has.
    let ones = Tensor::ones((1, 1, height, width), x.dtype(), x.device())?;
    Ok(mean.broadcast_div(&around(&ones, pads, 0.0)?.avg_pool2d_with_stride(kernel, stride)?)?)
}

/// Maps with a border of one number.
fn around(x: &Tensor, pads: [usize; 4], fill: f64) -> Step<Tensor> {
    if fill == 0.0 {
        return padded(x, pads);
    }
    let [top, left, bottom, right] = pads;
    let beside = |x: Tensor, axis: usize, before: usize, after: usize| -> Step<Tensor> {
        let of = |side: usize| {
            let mut dims = x.dims().to_vec();
            dims[axis] = side;
            Tensor::full(fill as f32, dims, x.device())
        };
        let mut parts = vec![x.clone()];
        if before > 0 {
            parts.insert(0, of(before)?);
        }
        if after > 0 {
            parts.push(of(after)?);
        }
        Ok(Tensor::cat(&parts, axis)?)
    };
    beside(beside(x.clone(), 2, top, bottom)?, 3, left, right)
}

/// Interpolation along rows and columns: a matrix for each.
pub(super) fn resize(node: &Node, x: &Tensor, inputs: &Inputs<'_>) -> Step<Tensor> {
    let (batch, channels, height, width) = spatial(x)?.dims4()?;
    let to = if let Some(to) = inputs.whole(3)? {
        sides(&to)?
    } else {
        let Some(scales) = inputs.get(2) else { return stuck("it lacks sizes and scales") };
        let scales = scales.flatten_all()?.to_vec1::<f32>()?;
        x.dims().iter().zip(scales).map(|(&side, scale)| (side as f32 * scale).floor() as usize).collect()
    };
    if to.len() != 4 || to[..2] != [batch, channels] || to[2] * to[3] == 0 || height * width == 0 {
        return stuck(format!("{:?} is not brought to {to:?}", x.dims()));
    }
    small(to.iter().product())?;
    let matrix = |from: usize, to: usize| -> Step<Tensor> {
        Ok(Tensor::from_vec(interpolation(node, from, to)?, (to, from), x.device())?)
    };
    let (rows, columns) = (matrix(height, to[2])?, matrix(width, to[3])?.t()?.contiguous()?);
    let wide = x.reshape((batch * channels * height, width))?.matmul(&columns)?;
    let wide = wide.reshape((batch * channels, height, to[3]))?;
    Ok(rows.broadcast_matmul(&wide)?.reshape(to)?)
}

/// Weights that make `to` numbers of `from`, `[to, from]`.
fn interpolation(node: &Node, from: usize, to: usize) -> Step<Vec<f32>> {
    let (mode, places) =
        (node.text("mode").unwrap_or("nearest"), node.text("coordinate_transformation_mode").unwrap_or("half_pixel"));
    if node.int("antialias").unwrap_or(0) != 0 || node.int("exclude_outside").unwrap_or(0) != 0 {
        return stuck("`antialias` and `exclude_outside` are not here");
    }
    let scale = from as f64 / to as f64;
    let a = f64::from(node.float("cubic_coeff_a").unwrap_or(-0.75));
    let mut all = vec![0.0; from * to];
    for (place, row) in all.chunks_exact_mut(from).enumerate() {
        let place = place as f64;
        let centre = match places {
            "pytorch_half_pixel" | "align_corners" if to == 1 => 0.0,
            "half_pixel" | "pytorch_half_pixel" => scale * (place + 0.5) - 0.5,
            "asymmetric" => scale * place,
            "align_corners" => place * (from - 1) as f64 / (to - 1) as f64,
            other => return stuck(format!("places `{other}` are not here")),
        };
        // Beyond the border stands what is at the border.
        let at = |x: f64| x.clamp(0.0, (from - 1) as f64) as usize;
        let before = centre.floor();
        match mode {
            "nearest" => match node.text("nearest_mode").unwrap_or("round_prefer_floor") {
                "floor" => row[at(before)] = 1.0,
                "ceil" => row[at(centre.ceil())] = 1.0,
                "round_prefer_floor" => row[at((centre - 0.5).ceil())] = 1.0,
                _ => row[at((centre + 0.5).floor())] = 1.0,
            },
            "linear" => {
                row[at(before)] += (1.0 - (centre - before)) as f32;
                row[at(before + 1.0)] += (centre - before) as f32;
            }
            "cubic" => {
                for step in [-1.0, 0.0, 1.0, 2.0] {
                    row[at(before + step)] += keys(a, before + step - centre) as f32;
                }
            }
            other => return stuck(format!("there is no interpolation `{other}`")),
        }
    }
    Ok(all)
}
