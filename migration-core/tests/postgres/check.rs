//! What a check finds.
