//! One suite for every implementation of `EmbeddingProvider` and `MlBridge`: what callers may rely on, whichever they
//! hold. Each implementation lists the checks of what its interface offers, so none is passed over in silence.

// The mock, which is alone without features, does not offer what some checks are of.
#![cfg_attr(not(any(feature = "python", feature = "onnx", feature = "openai")), allow(dead_code))]

#[cfg(feature = "openai")]
mod api_stand_in;
mod bridge_checks;
#[path = "../common/mod.rs"]
#[cfg(feature = "python")]
mod common;
#[cfg(feature = "onnx")]
mod exported;
mod mock;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "onnx")]
mod onnx_models;
#[cfg(feature = "openai")]
mod openai;
mod provider_checks;
#[cfg(feature = "python")]
mod python;

/// Makes a module with a test for each check, each on a subject of its own.
macro_rules! conforms {
    ($module:ident, $checks:ident, $subject:expr, [$($check:ident),+ $(,)?]) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $check() {
                    let subject = $subject.await;
                    let check = crate::$checks::$check(&subject);
                    tokio::time::timeout(std::time::Duration::from_secs(60), check).await.expect("it hangs");
                }
            )+
        }
    };
}
pub(crate) use conforms;

/// The checks of every provider, and those that are listed.
macro_rules! provider_conforms {
    ($module:ident, $subject:expr, [$($more:ident),* $(,)?]) => {
        crate::conforms!($module, provider_checks, $subject, [
            its_model_has_a_name_a_dimension_and_a_limit,
            each_text_has_a_vector_in_order,
            equal_texts_have_equal_vectors_and_others_do_not,
            vectors_have_length_1,
            no_text_gives_no_vector,
            an_empty_text_has_a_vector_or_is_named,
            any_characters_are_text,
            another_model_is_refused,
            a_long_text_is_treated_as_documented,
            tasks_at_once_get_their_own_vectors,
            a_dropped_call_leaves_the_next_alone,
            tokens_are_counted,
            it_is_healthy,
            $($more),*
        ]);
    };
}
pub(crate) use provider_conforms;

/// The checks of every bridge, and those that are listed.
macro_rules! bridge_conforms {
    ($module:ident, $subject:expr, [$($more:ident),* $(,)?]) => {
        crate::conforms!($module, bridge_checks, $subject, [
            a_text_alone_has_the_vector_that_it_has_in_a_batch,
            each_text_has_a_vector_in_order,
            vectors_have_length_1,
            no_text_gives_no_vector,
            an_empty_text_has_a_vector_or_is_refused,
            entities_are_where_they_say_or_unsupported,
            summaries_are_made_or_unsupported,
            tasks_at_once_get_their_own_vectors,
            a_dropped_call_leaves_the_next_alone,
            it_is_healthy,
            $($more),*
        ]);
    };
}
pub(crate) use bridge_conforms;

/// The largest difference of a value between the vectors of a text in two batches, whose order of additions differs.
const TOLERANCE: f32 = 1e-5;

fn close(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| (one - other).abs() <= TOLERANCE)
}

fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|value| value * value).sum::<f32>().sqrt()
}

/// Different texts of different lengths.
fn texts(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("text {index} {}", "is longer ".repeat(index % 7))).collect()
}
