//! Linear evaluation of features: a linear classifier is fitted to labeled features and told others'.
//!
//! The usual measure of an encoder beside the nearest neighbors' vote (Zhang, Isola and Efros 2016, "Colorful image colorization",
//! section 3.2, and every self-supervised method since). The encoder is frozen; features are centered by the mean of the bank and
//! scaled by one number. The classifier is multinomial logistic regression, fitted to its optimum by L-BFGS: the problem is
//! convex, so there is no rate, no schedule and no last epoch to choose. What there is to choose is the penalty.

use super::bank::{Bank, In, Out};
use kinset_artifact::scores::{ScoreRow, Scores};
use kinset_base::unit;
use kinset_kernel::gemm::Gemm;
use kinset_math::logistic::{Linear, Logistic};
use kinset_stage::{Context, Stage, StageError};
use kinset_train::feature_space::Centering;

/// What is tried where no `penalty` is set.
const PENALTIES: [f64; 6] = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
/// One in so many images of the bank is held out to choose among them.
const HELD_OUT: usize = 5;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Weight of the squared weights; features are centered and of mean square 1. Unset: of six from 0.00001 to 1 the one that is best on a fifth of the bank that is held out.
        penalty: Option<f64> = None, above_zero;
    }
}

/// Linear evaluation.
#[derive(Debug)]
pub struct LinearEval;

impl Stage for LinearEval {
    const KIND: &'static str = "linear_eval";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "evaluate features with a linear classifier on labels";
    const SEEDED: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let mut sets = Bank::load(&input)?;
        let dim = sets.bank.dim;
        let Some(centering) = Centering::of(&sets.bank.values, dim) else {
            return Err(StageError::Mismatch {
                what: format!("all features of `{}` are equal", input.bank.origin()),
                hint: "an encoder that tells images apart is needed".into(),
            });
        };
        centering.apply(&mut sets.bank.values);
        centering.apply(&mut sets.queries.values);
        let known: Vec<usize> = (0..sets.labels.len()).filter(|&row| sets.labels[row] >= 0).collect();
        let part = |rows: &[usize]| Part {
            rows: rows.iter().flat_map(|&row| sets.bank.values[row * dim..(row + 1) * dim].iter().copied()).collect(),
            labels: rows.iter().map(|&row| sets.labels[row] as u32).collect(),
        };
        if known.len() < 2 * HELD_OUT {
            return Err(StageError::Mismatch {
                what: format!("{} of `{}` have a label", unit::counted(known.len() as u64, "image"), input.bank.origin()),
                hint: format!("at least {} are needed", 2 * HELD_OUT),
            });
        }
        let fit = |part: &Part, penalty: f64| -> Result<Linear, StageError> {
            Ok(Logistic::new(penalty).fit(&part.rows, dim, &part.labels, sets.classes, &Gemm, &cx.stop)?)
        };
        let all = part(&known);
        let answers = |head: &Linear| -> Vec<i32> {
            head.labels(&sets.queries.values, dim, &Gemm).into_iter().map(|class| class as i32).collect()
        };
        let (penalty, best) = if let Some(penalty) = config.penalty {
            (penalty, None)
        } else {
            let order = cx.seed.branch("held out").rng().permutation(known.len());
            let held = |wanted: bool| -> Vec<usize> {
                let of = order.iter().enumerate().filter(|(place, _)| (place % HELD_OUT == 0) == wanted);
                of.map(|(_, &at)| known[at]).collect()
            };
            let (seen, unseen) = (part(&held(false)), part(&held(true)));
            let unfinished = cx.unfinished("linear_eval 1");
            // Of each penalty: the share that is right of what was held out, and of the queries.
            let mut tried: Vec<(f64, f64)> = unfinished.load()?.unwrap_or_default();
            let bar = cx.bar(PENALTIES.len() as u64, "penalties");
            bar.advance(tried.len() as u64);
            for &penalty in PENALTIES.iter().skip(tried.len()) {
                let share = fit(&seen, penalty)?.agreement(&unseen.rows, dim, &unseen.labels, &Gemm);
                tried.push((share, sets.share(&answers(&fit(&all, penalty)?))));
                unfinished.save(&tried)?;
                bar.advance(1);
            }
            // The largest of equal ones.
            let chosen = (0..tried.len()).max_by(|&a, &b| tried[a].0.total_cmp(&tried[b].0)).unwrap_or_default();
            (PENALTIES[chosen], tried.iter().map(|(_, share)| *share).max_by(f64::total_cmp))
        };
        let head = fit(&all, penalty)?;
        if !head.converged {
            cx.warn("the classifier did not converge; a larger `penalty` helps");
        }
        let said = answers(&head);
        let how = if config.penalty.is_none() { ", the best on a fifth that was held out" } else { "" };
        let mut notes =
            vec![format!("fitted to {} of the bank, penalty {penalty}{how}", unit::counted(known.len() as u64, "image"))];
        if let Some(share) = best {
            let share = 100.0 * share;
            notes.push(format!("with the penalty that is best by the labels of the queries themselves: {share:.1} %"));
        }
        let row = ScoreRow { linear: Some(sets.share(&said)), ..sets.row(&input, notes) };
        let protocol = Bank::protocol(&input, "none: a linear classifier was fitted to labels");
        Ok(Out { scores: Scores { protocol, rows: vec![row] }.save(&cx.out("scores")?)? })
    }
}

/// Some labeled images.
struct Part {
    /// `[M, D]`.
    rows: Vec<f32>,
    /// `[M]`.
    labels: Vec<u32>,
}
