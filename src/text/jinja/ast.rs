//! The syntax tree of a template.

use std::sync::Arc;

/// An expression of a template.
#[derive(Debug)]
pub enum Expr {
    Const(Const),
    Name(String),
    Tuple(Vec<Expr>),
    List(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Box<Expr>, String),
    Item(Box<Expr>, Box<Expr>),
    /// A slice with its start, stop and step.
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Arguments),
    Filter(Box<Filter>),
    Test(Box<Filter>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Binary(Operator, Box<(Expr, Expr)>),
    Concat(Vec<Expr>),
    And(Box<(Expr, Expr)>),
    Or(Box<(Expr, Expr)>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    /// A conditional with its condition, the value if it is true, and the value if it is false.
    Choice(Box<(Expr, Expr, Option<Expr>)>),
}

/// A literal of the template.
#[derive(Debug, Clone)]
pub enum Const {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
}

/// A filter or a test with its arguments. Without an input, it is applied to the text of a block.
#[derive(Debug)]
pub struct Filter {
    pub input: Option<Expr>,
    pub name: String,
    pub arguments: Arguments,
}

/// The arguments of a call.
#[derive(Debug, Default)]
pub struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(String, Expr)>,
    /// List of further arguments, `*list`.
    pub more: Option<Box<Expr>>,
    /// Dict of further named arguments, `**dict`.
    pub more_named: Option<Box<Expr>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

/// The target of an assignment.
#[derive(Debug)]
pub enum Target {
    Name(String),
    Tuple(Vec<Target>),
    /// An attribute of a namespace.
    Attribute(String, String),
}

/// A statement with its line.
#[derive(Debug)]
pub struct Node {
    pub line: usize,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    Text(String),
    Write(Expr),
    For(Arc<For>),
    If(Vec<(Expr, Vec<Node>)>, Vec<Node>),
    With(Vec<(Target, Expr)>, Vec<Node>),
    Set(Target, Expr),
    /// Assigns the text of a block, through a filter.
    SetBlock(Target, Option<Expr>, Vec<Node>),
    /// A macro that is called with a block, which is a macro itself.
    CallBlock(Expr, Arc<Macro>),
    FilterBlock(Expr, Vec<Node>),
    Macro(Arc<Macro>),
    /// The block `generation`, which marks the text that a model is trained on. It has its own scope.
    Generation(Vec<Node>),
    /// A block, which sees only the template's own names.
    Block(Vec<Node>),
    Break,
    Continue,
}

#[derive(Debug)]
pub struct For {
    pub target: Target,
    pub items: Expr,
    pub test: Option<Expr>,
    pub body: Vec<Node>,
    pub otherwise: Vec<Node>,
    pub recursive: bool,
}

/// A macro, or the block of a `call`, which has no name.
#[derive(Debug)]
pub struct Macro {
    pub name: Option<String>,
    pub parameters: Vec<String>,
    /// Default values of the last parameters.
    pub defaults: Vec<Expr>,
    pub body: Vec<Node>,
    pub uses: Uses,
}

/// Whether a macro uses the implicit names `varargs`, `kwargs` and `caller`.
#[derive(Debug, Default, Clone, Copy)]
pub struct Uses {
    pub caller: bool,
    pub varargs: bool,
    pub kwargs: bool,
}
