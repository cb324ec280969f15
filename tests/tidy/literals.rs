//! Finds the string literals of Rust source text, without the comments around them.

/// A string literal and the line on which it begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Literal<'a> {
    pub(super) line: usize,
    pub(super) text: &'a str,
}

/// The string literals of a source text: plain, raw, of bytes and of C.
pub(super) fn string_literals(source: &str) -> Vec<Literal<'_>> {
    let mut literals = Vec::new();
    let mut at = 0;
    while at < source.len() {
        let rest = &source[at..];
        let token = next_token(rest);
        if let Token::String { open, close } = token {
            let line = source[..at].matches('\n').count() + 1;
            literals.push(Literal { line, text: &rest[open..close] });
        }
        at += token_length(rest, &token);
    }
    literals
}

enum Token {
    /// Where the text between the quotes begins and ends.
    String { open: usize, close: usize },
    /// Something that cannot hold a string, of this length.
    Other(usize),
}

fn token_length(rest: &str, token: &Token) -> usize {
    match *token {
        Token::Other(length) => length,
        Token::String { open, close } => {
            let hashes = rest[..open].matches('#').count();
            (close + 1 + hashes).min(rest.len())
        }
    }
}

fn next_token(rest: &str) -> Token {
    if rest.starts_with("//") {
        return Token::Other(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Token::Other(block_comment_length(rest));
    }
    if let Some(length) = char_literal_length(rest) {
        return Token::Other(length);
    }
    if rest.starts_with('"') {
        return plain_string(rest);
    }
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    match &rest[..word] {
        "r" | "br" | "cr" => raw_string(rest, word).unwrap_or(Token::Other(word)),
        "" => Token::Other(rest.chars().next().map_or(1, char::len_utf8)),
        _ => Token::Other(word),
    }
}

fn plain_string(rest: &str) -> Token {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Token::String { open: 1, close: at },
            _ => {}
        }
    }
    Token::String { open: 1, close: rest.len() }
}

/// A raw string after its prefix, or nothing where the prefix is a name or begins a raw identifier.
fn raw_string(rest: &str, prefix: usize) -> Option<Token> {
    let hashes = rest[prefix..].chars().take_while(|&c| c == '#').count();
    let open = prefix + hashes + 1;
    if !rest[prefix + hashes..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let close = rest[open..].find(&end).map_or(rest.len(), |at| open + at);
    Some(Token::String { open, close })
}

/// Block comments nest.
fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let text = &rest.as_bytes()[at..];
        if text.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if text.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of a character literal, which a lifetime is not.
fn char_literal_length(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        // The character after the backslash may itself be a quote.
        let escaped = escape.chars().next()?.len_utf8();
        return Some(2 + escaped + escape[escaped..].find('\'')? + 1);
    }
    let length = inner.chars().next()?.len_utf8();
    inner[length..].starts_with('\'').then_some(1 + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        string_literals(source).iter().map(|literal| literal.text).collect()
    }

    #[test]
    fn all_kinds_of_string_are_found() {
        assert_eq!(
            texts(r##"a("one", b"two", r"three", br#"fo"ur"#, c"five")"##),
            ["one", "two", "three", "fo\"ur", "five"]
        );
    }

    #[test]
    fn comments_hold_no_strings() {
        assert_eq!(
            texts("/// \"a\"\n//! \"b\"\n/* \"c\" /* \"d\" */ \"e\" */ \"f\" // \"g\"\n\"h\""),
            ["f", "h"]
        );
    }

    #[test]
    fn quotes_in_strings_and_characters_do_not_confuse() {
        assert_eq!(texts(r#"'"' "a\"b" '\'' '\\' "c" '\u{22}' "//d" '/' '/'"#), [r#"a\"b"#, "c", "//d"]);
    }

    #[test]
    fn lifetimes_and_names_are_not_literals() {
        assert_eq!(texts("fn f<'a>(r: &'a str, for_r#type: r#type) -> &'a str { r } \"x\""), ["x"]);
    }

    #[test]
    fn lines_are_counted_from_one() {
        assert_eq!(
            string_literals("a\n\n  \"b\nc\" \"d\""),
            [Literal { line: 3, text: "b\nc" }, Literal { line: 4, text: "d" }]
        );
    }
}
