//! Entities, a summary and a vector through the functions of `akidb_mlx.ml_funcs`: `cargo run --example bridge`.

use std::time::Duration;

use akidb_embedding::{MlBridge, MlBridgeResult, PyMlBridge, PythonEnvironment};

#[tokio::main]
async fn main() -> MlBridgeResult<()> {
    let bridge = PyMlBridge::load("akidb_mlx.ml_funcs", PythonEnvironment::default()).await?;
    let bridge = bridge.with_timeout(Duration::from_secs(60));
    let text = "Alice met Bob in Paris.";

    let vector = bridge.generate_embedding(text).await?;
    println!("{} values", vector.len());
    for entity in bridge.extract_entities(text).await? {
        println!("{} {} at byte {}", entity.label, entity.text, entity.start_byte);
    }
    println!("{}", bridge.summarize(&[text.to_owned()]).await?);
    bridge.close().await
}
