import CLinux
import Synchronization

/// Makes the n-th system call fail, for tests that walk an operation through every failure it can meet.
///
/// Every call of this library that can fail asks here first. Unset, that costs one relaxed atomic load. A plan belongs
/// to the thread that set it, unless it was set for all; plans of several threads do not disturb one another, so tests
/// may run in parallel.
public enum SystemCallFaults {
    private struct Plan {
        var failingCall: Int
        var errno: Int32
        var operations: Set<String>?
        var callCount = 0
    }

    /// Number of plans; calls look at nothing else while it is 0.
    private static let planCount = Atomic<Int>(0)
    /// By thread; key 0 is the plan for all threads.
    private static let plans = Locked<[Int32: Plan]>([:])

    /// From now on, the `n`-th call (1 is the next one) fails with `errno`, once. Replaces an earlier plan.
    /// - Parameters:
    ///   - n: 0 fails nothing and only counts.
    ///   - operations: C names of the calls that count; nil counts all.
    ///   - threadOnly: only calls of the calling thread count.
    public static func inject(
        onCall n: Int, errno: Int32, matching operations: Set<String>? = nil, threadOnly: Bool = true
    ) {
        let key = threadOnly ? cf_thread_id() : 0
        plans.withLock { plans in
            plans[key] = Plan(failingCall: n, errno: errno, operations: operations)
            planCount.store(plans.count, ordering: .relaxed)
        }
    }

    /// Calls counted by this thread's plan, or else by the one for all threads.
    public static var callCount: Int {
        plans.withLock { ($0[cf_thread_id()] ?? $0[0])?.callCount ?? 0 }
    }

    /// Removes this thread's plan and the one for all threads.
    public static func clear() {
        plans.withLock { plans in
            plans[cf_thread_id()] = nil
            plans[0] = nil
            planCount.store(plans.count, ordering: .relaxed)
        }
    }

    static var isArmed: Bool { planCount.load(ordering: .relaxed) != 0 }

    /// The errno with which this call is to fail, or nil.
    static func next(_ operation: String) -> Int32? {
        plans.withLock { plans in
            for key in [cf_thread_id(), 0] {
                guard var plan = plans[key], plan.operations?.contains(operation) ?? true else { continue }
                plan.callCount += 1
                plans[key] = plan
                if plan.callCount == plan.failingCall { return plan.errno }
            }
            return nil
        }
    }
}
