"""The loop: settings, planner, graph, campaign runner, command line."""
