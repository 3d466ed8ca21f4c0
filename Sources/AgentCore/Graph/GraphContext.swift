import ColdframeKit
import Logging
import QMPWire

/// What a driver of a node gets of the graph however it comes to be opened.
@AgentActor
protocol GraphContext: OpenContext {
    var graph: Graph { get }
}

extension GraphContext {
    func object(id: String) -> (any UserObject)? { graph.findObject(id) }

    func corruptionReport() -> @Sendable (ImageCorruption) -> Void {
        let name = nodeName
        return { [weak graph] corruption in
            Task { @AgentActor in graph?.reportCorruption(of: name, corruption) }
        }
    }

    func eventReport() -> @Sendable (_ name: String, _ data: JSONObject) -> Void { graph.limitedEvents.post }

    var logger: Logger { graph.logger }
}
