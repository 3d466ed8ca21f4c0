import ColdframeKit

/// The text with which `body` is refused; nil if it is not. Other errors than the agent's are none of ours and pass.
public func refusal(_ body: () throws -> Void) throws -> String? {
    do { try body() } catch let error as ColdframeError { return error.message }
    return nil
}
