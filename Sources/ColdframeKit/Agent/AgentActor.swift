/// The one actor on which commands, graph, jobs, transactions, exports and the catalogue live.
///
/// Data never crosses it: reads and writes of guests run to completion on the threads that received them. What blocks
/// (file I/O of a snapshot, opening an image) runs on `BlockingPool` and is awaited.
@globalActor public actor AgentActor {
    public static let shared = AgentActor()
}
