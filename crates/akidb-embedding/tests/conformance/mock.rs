//! The stand-ins.

use std::sync::Arc;

use akidb_embedding::{EmbeddingProvider, MlBridge, MockEmbeddingProvider, MockMlBridge};

use crate::provider_checks::LongText;
use crate::{bridge_checks, bridge_conforms, provider_checks, provider_conforms};

struct Provider;

impl provider_checks::Subject for Provider {
    fn provider(&self) -> Arc<dyn EmbeddingProvider> {
        Arc::new(MockEmbeddingProvider::with_dimension(16))
    }

    fn long_text(&self) -> LongText {
        LongText::Read
    }
}

struct Bridge;

impl bridge_checks::Subject for Bridge {
    fn bridge(&self) -> Arc<dyn MlBridge> {
        Arc::new(MockMlBridge)
    }
}

provider_conforms!(mock_provider, async { crate::mock::Provider }, [vectors_keep_their_length_if_that_is_asked]);
bridge_conforms!(mock_bridge, async { crate::mock::Bridge }, []);
