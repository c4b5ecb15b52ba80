//! Published vision transformers, for squares of the size on the card.
//!
//! Class token, registers and positions are the same for every picture, so they are one table here: patches get rows of zeros before
//! them, and the table is added. No operator has to know how many pictures there are.

use candle_core::{Device, Tensor};

use super::graph::Sketch;
use super::messages::Attribute;
use crate::error::Result;
use crate::params::values;
use crate::{positions, vit};
use kinset_artifact::encoder::{Architecture, Family, Transformer};

/// Sizes that every layer needs.
struct Shape<'a> {
    of: &'a Transformer,
    /// D.
    width: usize,
    /// T: class token, registers and patches.
    tokens: usize,
    /// Patches a side.
    side: usize,
}

/// # Shapes
/// `x`: `[B, 3, S, S]`, normalized. Gives `features`, `[B, D]`, or of CLIP's projection.
pub(super) fn features(s: &mut Sketch, architecture: &Architecture, of: &Transformer, x: &str) -> Result<String> {
    let (width, side) = (architecture.width, architecture.size / of.patch);
    let shape = Shape { of, width, tokens: 1 + of.registers + side * side, side };
    let table = tokens(s, &shape)?;
    let mut x = embedded(s, &shape, x, &table);
    if of.family == Family::Clip {
        x = norm(s, &shape, &x, "backbone.norm_pre", "backbone.norm_pre");
    }
    for number in 0..of.depth {
        x = block(s, &shape, &x, &format!("backbone.blocks.{number}"));
    }
    let apart = s.whole("rows_of_a_picture", &[-1, shape.tokens as i64, width as i64]);
    let pictures = s.node("Reshape", "backbone.pictures", &[&x, &apart], Vec::new());
    let zero = s.index("first", 0);
    let class = s.node("Gather", "backbone.class", &[&pictures, &zero], vec![Attribute::int("axis", 1)]);
    Ok(match of.output {
        None => norm(s, &shape, &class, "backbone.norm", "features"),
        Some(output) => {
            let class = norm(s, &shape, &class, "backbone.norm", "backbone.norm");
            let weight = s.weight("backbone.proj.weight", &[output, width]);
            s.node("Gemm", "features", &[&class, &weight], vec![Attribute::int("transB", 1)])
        }
    })
}

/// What is added to a picture's rows: `[1, T, D]`.
fn tokens(s: &mut Sketch, shape: &Shape<'_>) -> Result<String> {
    let &Shape { of: &Transformer { grid, registers, .. }, width, tokens, side } = shape;
    let class = s.take("backbone.cls_token", &[1, 1, width]);
    let learned = s.take("backbone.pos_embed", &[1, 1 + grid * grid, width]);
    let extra = if registers > 0 { s.take("backbone.register_tokens", &[1, registers, width]) } else { Some(Vec::new()) };
    let (Some(class), Some(learned), Some(extra)) = (class, learned, extra) else {
        s.check()?;
        return Ok(String::new());
    };
    let (first, patches) = learned.split_at(width);
    let patches = Tensor::from_slice(patches, (grid * grid, width), &Device::Cpu)?;
    let mut table: Vec<f32> = class.iter().zip(first).map(|(class, position)| class + position).collect();
    table.extend(extra);
    table.extend(values(&positions::resized(&patches, grid, side, registers > 0)?)?);
    Ok(s.constant("backbone.tokens", &[1, tokens, width], &table))
}

/// `[B, 3, S, S]` → `[B·T, D]`.
fn embedded(s: &mut Sketch, shape: &Shape<'_>, x: &str, table: &str) -> String {
    let &Shape { of: &Transformer { patch, family, registers, .. }, width, side, .. } = shape;
    let name = "backbone.patch_embed.proj";
    let weight = s.weight(&format!("{name}.weight"), &[width, 3, patch, patch]);
    let bias = (family == Family::Dinov2).then(|| s.weight(&format!("{name}.bias"), &[width]));
    let inputs: Vec<&str> = [Some(x), Some(weight.as_str()), bias.as_deref()].into_iter().flatten().collect();
    let attributes = vec![Attribute::ints("kernel_shape", &[patch; 2]), Attribute::ints("strides", &[patch; 2])];
    let patches = s.node("Conv", name, &inputs, attributes);
    let row = s.whole("patches_in_a_row", &[-1, width as i64, (side * side) as i64]);
    let patches = s.node("Reshape", "backbone.patches", &[&patches, &row], Vec::new());
    let rows = s.node("Transpose", "backbone.rows", &[&patches], vec![Attribute::ints("perm", &[0, 2, 1])]);
    let before = s.whole("rows_before", &[0, 1 + registers as i64, 0, 0, 0, 0]);
    let room = s.node("Pad", "backbone.room", &[&rows, &before], Vec::new());
    let whole = s.node("Add", "backbone.embedded", &[&room, table], Vec::new());
    let flat = s.whole("a_row_each", &[-1, width as i64]);
    s.node("Reshape", "backbone.flat", &[&whole, &flat], Vec::new())
}

/// # Shapes
/// `[B·T, D]` → `[B·T, D]`.
fn block(s: &mut Sketch, shape: &Shape<'_>, x: &str, name: &str) -> String {
    let &Shape { of: &Transformer { hidden, family, .. }, width, .. } = shape;
    let part = |part: &str| format!("{name}.{part}");
    let y = norm(s, shape, x, &part("norm1"), &part("norm1"));
    let y = attention(s, shape, &y, &part("attn"));
    let y = scaled(s, shape, y, &part("ls1"));
    let x = s.node("Add", &part("add1"), &[x, &y], Vec::new());
    let y = norm(s, shape, &x, &part("norm2"), &part("norm2"));
    let y = s.linear(&y, &part("mlp.fc1"), width, hidden);
    let y = match family {
        Family::Dinov2 => s.gelu(&y, &part("mlp.gelu")),
        Family::Clip => {
            let steep = s.constant("steepness", &[], &[1.702]);
            let steeper = s.node("Mul", &part("mlp.steeper"), &[&y, &steep], Vec::new());
            let share = s.node("Sigmoid", &part("mlp.share"), &[&steeper], Vec::new());
            s.node("Mul", &part("mlp.gelu"), &[&y, &share], Vec::new())
        }
    };
    let y = s.linear(&y, &part("mlp.fc2"), hidden, width);
    let y = scaled(s, shape, y, &part("ls2"));
    s.node("Add", &part("add2"), &[&x, &y], Vec::new())
}

/// Layer scale, where the family has it.
fn scaled(s: &mut Sketch, shape: &Shape<'_>, x: String, name: &str) -> String {
    if shape.of.family == Family::Clip {
        return x;
    }
    let gamma = s.weight(&format!("{name}.gamma"), &[shape.width]);
    s.node("Mul", name, &[&x, &gamma], Vec::new())
}

/// Layer norm with the weights called `weights`.
fn norm(s: &mut Sketch, shape: &Shape<'_>, x: &str, weights: &str, name: &str) -> String {
    let weight = s.weight(&format!("{weights}.weight"), &[shape.width]);
    let bias = s.weight(&format!("{weights}.bias"), &[shape.width]);
    let attributes = vec![Attribute::int("axis", -1), Attribute::float("epsilon", vit::epsilon(shape.of.family))];
    s.node("LayerNormalization", name, &[x, &weight, &bias], attributes)
}

/// # Shapes
/// `[B·T, D]` → `[B·T, D]`, through `[B, A, T, D/A]`.
fn attention(s: &mut Sketch, shape: &Shape<'_>, x: &str, name: &str) -> String {
    let &Shape { of: &Transformer { heads, .. }, width, tokens, .. } = shape;
    let dim = width / heads;
    let part = |part: &str| format!("{name}.{part}");
    let qkv = s.linear(x, &part("qkv"), width, 3 * width);
    let by_head = s.whole("heads_apart", &[-1, tokens as i64, 3, heads as i64, dim as i64]);
    let apart = s.node("Reshape", &part("apart"), &[&qkv, &by_head], Vec::new());
    let turned = s.node("Transpose", &part("turned"), &[&apart], vec![Attribute::ints("perm", &[2, 0, 3, 1, 4])]);
    let [query, key, value] =
        [("query", "first", 0), ("key", "second", 1), ("value", "third", 2)].map(|(word, which, number)| {
            let which = s.index(which, number);
            s.node("Gather", &part(word), &[&turned, &which], vec![Attribute::int("axis", 0)])
        });
    let key = s.node("Transpose", &part("key_turned"), &[&key], vec![Attribute::ints("perm", &[0, 1, 3, 2])]);
    let scale = s.constant("scale_of_scores", &[], &[(1.0 / (dim as f64).sqrt()) as f32]);
    let scores = s.node("MatMul", &part("scores"), &[&query, &key], Vec::new());
    let scores = s.node("Mul", &part("scaled"), &[&scores, &scale], Vec::new());
    let shares = s.node("Softmax", &part("shares"), &[&scores], vec![Attribute::int("axis", -1)]);
    let taken = s.node("MatMul", &part("taken"), &[&shares, &value], Vec::new());
    let back = s.node("Transpose", &part("back"), &[&taken], vec![Attribute::ints("perm", &[0, 2, 1, 3])]);
    let flat = s.whole("a_row_each", &[-1, width as i64]);
    let flat = s.node("Reshape", &part("flat"), &[&back, &flat], Vec::new());
    s.linear(&flat, &part("proj"), width, width)
}
