/// A JSON object whose members keep the order in which they were added.
///
/// Lookup is a scan of a short object and hashed in a long one, so that a hostile object of a million members costs
/// linear time. Removing from a long object costs its length.
public struct JSONObject: Sendable {
    public typealias Element = (key: String, value: JSONValue)

    private var members: [Element] = []
    /// Positions by key; kept from `indexedCount` members on.
    private var index: [ExactString: Int]?

    private static let indexedCount = 16

    public init() {}

    /// Later members replace earlier ones of the same key.
    public init(members: some Sequence<(String, JSONValue)>) {
        for (key, value) in members { self[key] = value }
    }

    public var count: Int { members.count }
    public var isEmpty: Bool { members.isEmpty }
    public var keys: [String] { members.map(\.key) }

    /// Setting a new key appends it, setting an old one keeps its place, setting nil removes.
    public subscript(key: String) -> JSONValue? {
        get { position(of: key).map { members[$0].value } }
        set {
            switch (position(of: key), newValue) {
            case (let position?, let value?): members[position].value = value
            case (let position?, nil): remove(at: position)
            case (nil, let value?): append(key, value)
            case (nil, nil): break
            }
        }
    }

    public func contains(_ key: String) -> Bool { position(of: key) != nil }

    /// Adds a member unless the key is there; false, and nothing is changed, if it is.
    public mutating func insert(_ key: String, _ value: JSONValue) -> Bool {
        if position(of: key) != nil { return false }
        append(key, value)
        return true
    }

    private func position(of key: String) -> Int? {
        if let index { return index[ExactString(key)] }
        return members.firstIndex { ExactString.same($0.key, key) }
    }

    private mutating func append(_ key: String, _ value: JSONValue) {
        members.append((key, value))
        if index != nil {
            index?[ExactString(key)] = members.count - 1
        } else if members.count >= Self.indexedCount {
            rebuildIndex()
        }
    }

    private mutating func remove(at position: Int) {
        members.remove(at: position)
        rebuildIndex()
    }

    private mutating func rebuildIndex() {
        guard members.count >= Self.indexedCount else {
            index = nil
            return
        }
        var rebuilt: [ExactString: Int] = Dictionary(minimumCapacity: members.count)
        for (position, member) in members.enumerated() { rebuilt[ExactString(member.key)] = position }
        index = rebuilt
    }
}

extension JSONObject: Sequence {
    public func makeIterator() -> IndexingIterator<[Element]> { members.makeIterator() }
    public var underestimatedCount: Int { members.count }
}

extension JSONObject: Equatable {
    /// Equal members, in whatever order.
    public static func == (left: JSONObject, right: JSONObject) -> Bool {
        left.count == right.count && left.allSatisfy { right[$0.key] == $0.value }
    }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
    public init(dictionaryLiteral elements: (String, JSONValue)...) { self.init(members: elements) }
}

extension JSONObject: CustomStringConvertible {
    /// The compact JSON text.
    public var description: String { JSONWriter.string(.object(self)) }
}
